/* Converts text to bytes. */

/** Undefined in a bare context of Node's vm, where importing must not throw. */
export const encoder = globalThis.TextEncoder && new TextEncoder();
