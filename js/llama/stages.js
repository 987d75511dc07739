/* Divides the layers of a model among several devices. */

import { ArgumentError } from '../errors.js';
import { StagedBackend } from '../staged-backend.js';
import { ModelError } from './errors.js';
import { slicePlan } from './plan-slice.js';

/** @typedef {import('../backend.js').Backend} Backend */
/** @typedef {import('../staged-backend.js').Stage} Stage */
/** @typedef {import('./load-options.js').BackendPart} BackendPart */
/** @typedef {import('./place.js').ModelFacts} ModelFacts */
/** @typedef {import('./place.js').Opened} Opened */

/** A part of the option, opened. @typedef {{ part: BackendPart, backend: Backend }} Device */

/**
 * Opens devices, and divides the layers among them. Layers that a GPU cannot compute go to the CPU.
 * @param {readonly BackendPart[]} list
 * @param {ModelFacts} facts
 * @param {(part: BackendPart) => Promise<Backend>} open
 * @param {boolean} mayMoveAll  whether all layers may go to the CPU
 * @returns {Promise<Opened>}
 * @throws {ArgumentError} the numbers of layers do not add up to those of the model
 * @throws {ModelError} the devices have no room for all layers, or cannot compute any; or layers that
 *   share something are on different devices
 */
export async function openStages(list, facts, open, mayMoveAll) {
  /** @type {Device[]} */
  const devices = [];
  /** @type {string[]} */
  const steps = [];
  try {
    for (const part of list) {
      const backend = await open(part);
      devices.push({ part, backend });
      steps.push(`${backend.info.gpu ? backend.info.gpu.adapter.name : 'the CPU'} was opened`);
    }
    /** Device of each layer. @type {Device[]} */
    const owners = await divide(devices, facts, steps);
    const moved = await moveUnsupported(owners, facts, devices, open, mayMoveAll);
    steps.push(...moved);
    checkShared(owners, facts.plan);
    const used = new Set(owners);
    for (const { backend } of devices.filter((one) => !used.has(one))) backend.dispose();
    return openedOf(stagesOf(owners, facts), moved, steps, facts);
  } catch (error) {
    for (const { backend } of devices) backend.dispose();
    throw error;
  }
}

/**
 * Which device computes each layer.
 * @param {readonly Device[]} devices
 * @param {ModelFacts} facts
 * @param {string[]} steps
 */
async function divide(devices, facts, steps) {
  const nLayers = facts.plan.layers.length;
  /** @type {Device[]} */
  const owners = [];
  for (const [i, device] of devices.entries()) {
    const { layers } = device.part;
    const later = devices.slice(i + 1);
    const promised = later.reduce(
      (sum, { part }) => sum + (typeof part.layers === 'number' ? part.layers : 0),
      0,
    );
    const left = nLayers - owners.length - promised;
    let n = typeof layers === 'number' ? layers : Math.max(0, left);
    if (layers === 'fit') {
      const wanted = n;
      n = await countFitting(device, owners.length, wanted, facts);
      steps.push(`backend[${i}] (${device.part.backend}) has room for ${n} of ${wanted} layers`);
    }
    for (let k = 0; k < n; k++) owners.push(device);
  }
  if (owners.length === nLayers) return owners;
  const taken = `the devices of backend take ${owners.length} layers, the model has ${nLayers}`;
  if (devices.some(({ part }) => part.layers === 'fit') && owners.length < nLayers)
    throw new ModelError(`${taken}: the others do not fit, and no device takes the rest`);
  throw new ArgumentError(taken);
}

/**
 * How many layers fit a device.
 * @param {Device} device
 * @param {number} from  the first of them
 * @param {number} most
 * @param {ModelFacts} facts
 */
async function countFitting({ part, backend }, from, most, { gguf, plan, planned, settings }) {
  if (most === 0) return 0;
  const nLayers = plan.layers.length;
  const slice = (/** @type {number} */ first, /** @type {number} */ end, ends = {}) =>
    slicePlan(plan, planned, { from: first, to: end, embedding: false, head: false, ...ends });
  const bytesOf = (/** @type {ReturnType<typeof slice>} */ { tensors }) =>
    tensors.reduce((sum, { name }) => sum + gguf.tensor(name).byteLength, 0);
  const whole = slice(from, from + most);
  const embedding = from === 0 ? bytesOf(slice(0, 0, { embedding: true })) : 0;
  const pieces = [backend.sizes(whole.plan, settings).workspaceBytes + embedding];
  for (let i = from; i < from + most; i++) {
    const layer = slice(i, i + 1);
    pieces.push(bytesOf(layer) + backend.sizes(layer.plan, settings).kvBytes);
  }
  if (from + most === nLayers) pieces.push(bytesOf(slice(nLayers, nLayers, { head: true })));
  const fitting =
    part.memoryBytes === undefined ? await backend.fits(pieces) : countWithin(pieces, part.memoryBytes);
  // The first piece has no layer. Without room for the head, its layer is left to the next device.
  if (fitting === pieces.length) return most;
  return Math.max(0, Math.min(fitting - 1, from + most === nLayers ? most - 1 : most));
}

/** How many pieces a number of bytes holds. @param {readonly number[]} pieces @param {number} bytes */
function countWithin(pieces, bytes) {
  let sum = 0;
  const full = pieces.findIndex((piece) => {
    sum += piece;
    return sum > bytes;
  });
  return full < 0 ? pieces.length : full;
}

/**
 * Gives the layers that a GPU cannot compute to the CPU.
 * @param {Device[]} owners  changed
 * @param {ModelFacts} facts
 * @param {Device[]} devices  a CPU joins them where one is needed and there is none
 * @param {(part: BackendPart) => Promise<Backend>} open
 * @param {boolean} mayMoveAll
 * @returns {Promise<string[]>}  sentences about them
 */
async function moveUnsupported(owners, facts, devices, open, mayMoveAll) {
  const { plan, planned, gguf, settings } = facts;
  const last = plan.layers.length - 1;
  /** @type {Map<string, number[]>} */
  const reasons = new Map();
  for (const [i, { part, backend }] of owners.entries()) {
    if (part.backend === 'cpu') continue;
    const ends = { embedding: i === 0, head: i === last };
    const { plan: own, tensors } = slicePlan(plan, planned, { from: i, to: i + 1, ...ends });
    const lacking = backend.lacks(
      own,
      tensors.map(({ name }) => gguf.tensor(name)),
      settings,
    );
    if (lacking.length === 0) continue;
    const reason = lacking.join('; ');
    reasons.set(reason, [...(reasons.get(reason) ?? []), i]);
  }
  const moved = [...reasons.values()].flat();
  if (moved.length === 0) return [];
  if (moved.length === owners.length && !mayMoveAll) throw new ModelError([...reasons.keys()].join('; '));
  let cpu = devices.find(({ part }) => part.backend === 'cpu');
  if (!cpu) {
    const part = { backend: /** @type {const} */ ('cpu') };
    cpu = { part, backend: await open(part) };
    devices.push(cpu);
  }
  for (const layer of moved) owners[layer] = cpu;
  return [...reasons].map(
    ([reason, layers]) =>
      `the CPU computes ${layers.length === 1 ? 'layer' : 'layers'} ${layers.join(', ')}: ${reason}`,
  );
}

/**
 * Refuses a division in which a layer lacks what only another device has.
 * @param {readonly Device[]} owners
 * @param {import('./plan.js').Plan} plan
 */
function checkShared(owners, { layers, embedding }) {
  for (const [i, { attention }] of layers.entries()) {
    const owner = i - (attention?.kvBack ?? 0);
    if (owners[owner] !== owners[i]) {
      throw new ModelError(
        `layer ${i} reads the keys and values of layer ${owner}: both must be on the same device`,
      );
    }
    if (embedding.layerInputs && owners[i] !== owners[0]) {
      throw new ModelError(
        `each layer reads inputs that are computed with the embedding: layer ${i} must be on the same device as layer 0`,
      );
    }
  }
}

/**
 * Neighbours on the same device are a stage.
 * @param {readonly Device[]} owners
 * @param {ModelFacts} facts
 */
function stagesOf(owners, { plan, planned }) {
  const nLayers = owners.length;
  /** @type {(Stage & { name: 'cpu' | 'gpu' })[]} */
  const stages = [];
  for (let from = 0; from < nLayers; ) {
    let to = from + 1;
    while (to < nLayers && owners[to] === owners[from]) to++;
    const slice = slicePlan(plan, planned, { from, to, embedding: from === 0, head: to === nLayers });
    const { part, backend } = owners[from];
    stages.push({ backend, name: part.backend, from, to, slice });
    from = to;
  }
  return stages;
}

/**
 * @param {ReturnType<typeof stagesOf>} stages
 * @param {readonly string[]} moved
 * @param {string[]} steps
 * @param {ModelFacts} facts
 * @returns {Opened}
 */
function openedOf(stages, moved, steps, { settings }) {
  const [{ backend, name }, ...others] = stages;
  const reason = ['the option backend says so', ...moved].join('; ');
  if (others.length === 0) return { backend, choice: { name, reason, steps } };
  const isMixed = others.some((one) => one.name !== name);
  const layers = stages.map(({ name: of, from, to }) => ({ backend: of, from, to }));
  const choice = { name: isMixed ? /** @type {const} */ ('mixed') : name, reason, layers, steps };
  return { backend: new StagedBackend(stages, settings), choice };
}
