/* Numbers of the WebGPU specification, written out: Node has no globals for them. */

const COPY_SRC = 0x4;
const COPY_DST = 0x8;
const UNIFORM = 0x40;
const STORAGE = 0x80;
const MAP_READ = 0x1;

export const USAGE = Object.freeze({
  storage: STORAGE | COPY_SRC | COPY_DST,
  uniform: UNIFORM | COPY_DST,
  staging: MAP_READ | COPY_DST,
});

export const MAP_MODE_READ = 1;
export const STAGE_COMPUTE = 4;
