/** The model card: what is open, a map of its tensors, and how far loading is. */
import { byId, el } from '../dom.js';
import { bytes, count, digits, duration } from '../format.js';
import { byType } from './palette.js';

/** @typedef {{ name: string, type: string, byteLength: number }} Tile */
/** @typedef {{ byteLength: number, nParts: number }} Size */

/** 2.6 million, 1.2 billion. @param {number} n */
export function parametersOf(n) {
  if (n >= 1e9) return `${digits(n / 1e9)}\u00a0billion parameters`;
  if (n >= 1e6) return `${digits(n / 1e6)}\u00a0million parameters`;
  return `${count(n)} parameters`;
}

/** 1.57 MB, 3 GB in 5 parts. @param {Size} size */
const sizeOf = ({ byteLength, nParts }) =>
  `${bytes(byteLength)}${nParts > 1 ? ` in ${count(nParts)}\u00a0parts` : ''}`;

/** The layer a tensor belongs to: its row of the map. @param {string} name */
const layerOf = (name) => /^blk\.(\d+)\./.exec(name)?.[1] ?? name;

export class ModelCard {
  #map = byId('mini-map');
  /** In the order of the file. @type {{ tile: HTMLElement, start: number, size: number, shown: number }[]} */
  #tiles = [];

  /** @param {Size & { title: string, architecture: string, tensors: Tile[], parameters: number }} file @param {string} name */
  show({ architecture, tensors, parameters, ...size }, name) {
    byId('model-name').textContent = name;
    byId('model-details').textContent = [architecture, parametersOf(parameters), sizeOf(size)]
      .filter(Boolean)
      .join(' · ');
    this.#draw(tensors);
  }

  /** @param {string} words */
  note(words) {
    byId('model-details').textContent = words;
  }

  /** @param {import('../../js/llama/info.js').ModelInfo} info @param {Size} size */
  loaded(info, size) {
    const loadMs = Object.values(info.timings).reduce((sum, ms) => sum + ms);
    this.note(
      `${info.architecture} · ${parametersOf(info.parameters)} · ${info.nLayers} layers · ${sizeOf(size)}, loaded in ${duration(loadMs)}`,
    );
  }

  /** @param {Tile[]} tensors */
  #draw(tensors) {
    const classes = new Map(byType(tensors).map(({ type, className }) => [type, className]));
    /** @type {Map<string, HTMLElement>} */
    const rows = new Map();
    let start = 0;
    this.#tiles = tensors.map(({ name, type, byteLength }) => {
      const layer = layerOf(name);
      let row = rows.get(layer);
      if (!row) {
        row = el('div', { class: 'map-row' });
        rows.set(layer, row);
      }
      const tile = el('span', {
        class: `map-tile ${classes.get(type)}`,
        title: `${name}: ${type}, ${bytes(byteLength)}`,
      });
      tile.style.setProperty('--share', String(byteLength));
      row.append(tile);
      const at = { tile, start, size: byteLength, shown: 0 };
      start += byteLength;
      return at;
    });
    // Vectors that are alone in their row would be as wide as a matrix, and say nothing.
    const large = [...rows.values()].filter(
      (row) => row.childElementCount > 1 || tensors.length < 4 || isLarge(row, start),
    );
    this.#map.style.setProperty('--rows', String(large.length));
    this.#map.replaceChildren(...large);
  }

  /** Nothing of it is loaded yet. */
  startLoading() {
    this.#map.classList.add('loading');
    for (const one of this.#tiles) {
      one.shown = 0;
      one.tile.style.setProperty('--loaded', '0');
    }
  }

  /** @param {{ loaded: number, total: number }} progress */
  progress({ loaded, total }) {
    const all = this.#tiles.at(-1);
    if (!all) return;
    // The loader counts the weights that it uses; the map has all of the file.
    const at = (loaded / total) * (all.start + all.size);
    for (const one of this.#tiles) {
      const part = Math.max(0, Math.min(1, (at - one.start) / one.size));
      if (part === one.shown) continue;
      one.shown = part;
      one.tile.style.setProperty('--loaded', String(part));
    }
  }

  endLoading() {
    this.#map.classList.remove('loading');
  }
}

/** @param {HTMLElement} row @param {number} total */
function isLarge(row, total) {
  const tile = /** @type {HTMLElement} */ (row.firstElementChild);
  return Number(tile.style.getPropertyValue('--share')) > total / 200;
}
