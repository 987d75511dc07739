/* A libvulkan.so.1 in front of the real one, for a driver that compiles but has no device to run
 * on: RADV with RADV_FORCE_FAMILY. Recording and submitting succeed and do nothing, so that WebGPU
 * opens a device and compiles shaders to machine code.
 *
 * FM_VULKAN_LOADER  path of the real loader */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef void (*vulkan_function)(void);
typedef vulkan_function (*vulkan_lookup)(void *owner, const char *name);

#define EXPORT __attribute__((visibility("default")))

/* VK_SUCCESS; commands without a result ignore it. */
static int32_t succeed(void) { return 0; }

static const char *const submissions[] = {
    "vkBeginCommandBuffer", "vkEndCommandBuffer", "vkResetCommandBuffer", "vkResetCommandPool",
    "vkQueueSubmit",        "vkQueueSubmit2",     "vkQueueWaitIdle",      "vkDeviceWaitIdle",
    "vkGetFenceStatus",     "vkWaitForFences",    "vkResetFences",
};

static int does_nothing(const char *name) {
  if (strncmp(name, "vkCmd", 5) == 0) return 1;
  for (size_t i = 0; i < sizeof submissions / sizeof submissions[0]; i++)
    if (strcmp(name, submissions[i]) == 0) return 1;
  return 0;
}

static vulkan_lookup real_lookup(const char *name) {
  static void *library;
  const char *path = getenv("FM_VULKAN_LOADER");
  if (!library && path) library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  return library ? (vulkan_lookup)dlsym(library, name) : NULL;
}

EXPORT vulkan_function vkGetDeviceProcAddr(void *device, const char *name) {
  vulkan_lookup lookup = real_lookup("vkGetDeviceProcAddr");
  vulkan_function found = lookup ? lookup(device, name) : NULL;
  return found && does_nothing(name) ? (vulkan_function)succeed : found;
}

EXPORT vulkan_function vkGetInstanceProcAddr(void *instance, const char *name) {
  if (strcmp(name, "vkGetInstanceProcAddr") == 0) return (vulkan_function)vkGetInstanceProcAddr;
  if (strcmp(name, "vkGetDeviceProcAddr") == 0) return (vulkan_function)vkGetDeviceProcAddr;
  vulkan_lookup lookup = real_lookup("vkGetInstanceProcAddr");
  vulkan_function found = lookup ? lookup(instance, name) : NULL;
  return found && does_nothing(name) ? (vulkan_function)succeed : found;
}
