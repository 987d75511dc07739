/* A library that Chromium loads in place of SwiftShader. It passes everything on to the Vulkan
 * loader, which finds another driver by VK_ICD_FILENAMES, and gives that driver's device the ids of
 * SwiftShader: a page gets no other adapter that computes on the processor. So a page can be
 * measured on a software driver with shader-f16. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define VENDOR_GOOGLE 0x1AE0u
#define DEVICE_SWIFTSHADER 0xC0DEu

typedef void (*function)(void);
typedef function (*lookup)(void *instance, const char *name);

/* The beginning of VkPhysicalDeviceProperties. */
struct properties {
  uint32_t api_version, driver_version, vendor, device;
};
/* The beginning of VkPhysicalDeviceProperties2. */
struct properties2 {
  uint32_t type;
  void *next;
  struct properties properties;
};

static void (*get_properties)(void *device, struct properties *result);
static void (*get_properties2)(void *device, struct properties2 *result);

static void rename_device(struct properties *of) {
  of->vendor = VENDOR_GOOGLE;
  of->device = DEVICE_SWIFTSHADER;
}

static void renamed_properties(void *device, struct properties *result) {
  get_properties(device, result);
  rename_device(result);
}

static void renamed_properties2(void *device, struct properties2 *result) {
  get_properties2(device, result);
  rename_device(&result->properties);
}

static lookup loader(void) {
  static lookup found;
  if (!found) {
    const char *path = getenv("STAND_IN_LOADER");
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library) *(void **)&found = dlsym(library, "vkGetInstanceProcAddr");
  }
  return found;
}

EXPORT function vkGetInstanceProcAddr(void *instance, const char *name) {
  function real = loader() ? loader()(instance, name) : NULL;
  if (!real) return NULL;
  if (strcmp(name, "vkGetInstanceProcAddr") == 0) return (function)vkGetInstanceProcAddr;
  if (strcmp(name, "vkGetPhysicalDeviceProperties") == 0) {
    get_properties = (void (*)(void *, struct properties *))real;
    return (function)renamed_properties;
  }
  if (strncmp(name, "vkGetPhysicalDeviceProperties2", strlen("vkGetPhysicalDeviceProperties2")) ==
      0) {
    get_properties2 = (void (*)(void *, struct properties2 *))real;
    return (function)renamed_properties2;
  }
  return real;
}
