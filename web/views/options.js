/** The writer's options. What the model must be loaded anew for is told apart from what the next text just uses. */
import { byId, el } from '../dom.js';
import { gpuOptions } from '../gpu.js';

const form = () => /** @type {HTMLFormElement} */ (byId('composer'));

export class OptionsView {
  /** @param {() => void} onReload  the model must be loaded anew */
  constructor(onReload) {
    byId('options').addEventListener('input', () => {
      this.#schema.setCustomValidity('');
      this.summarise();
    });
    byId('options').addEventListener('change', (/** @type {Event} */ event) => {
      const { name } = /** @type {HTMLInputElement} */ (event.target);
      if (name === 'activation' || name === 'threads') onReload();
    });
    byId('device').addEventListener('change', () => {
      this.summarise();
      onReload();
    });
    const mode = /** @type {HTMLInputElement} */ (form().querySelector('[name=activation][value=int8]'));
    mode.checked = true;
    this.offerThreads(1, 1, undefined);
  }

  /**
   * @param {number} inUse
   * @param {number} most
   * @param {string | undefined} why  there is only one
   */
  offerThreads(inUse, most, why) {
    const select = byId('threads');
    const choices = Array.from({ length: Math.max(most, inUse, 1) }, (_, i) => i + 1);
    select.replaceChildren(
      ...choices.map((n) => el('option', { value: n, selected: n === inUse }, String(n))),
    );
    select.disabled = choices.length === 1;
    select.title = why ?? '';
    this.summarise();
  }

  /** Options of `generate` for the next text. Call check() first. */
  get generation() {
    return { ...this.numbers, responseFormat: this.#responseFormat };
  }

  /** The same, for a text of any form. */
  get numbers() {
    const data = new FormData(form());
    const number = (/** @type {string} */ name, /** @type {number} */ fallback) => {
      const text = String(data.get(name) ?? '').trim();
      const value = Number(text);
      return text !== '' && Number.isFinite(value) ? value : fallback;
    };
    const seed = String(data.get('seed') ?? '').trim();
    return {
      temperature: number('temperature', 0.8),
      topK: number('topK', 40),
      topP: number('topP', 0.95),
      maxTokens: number('maxTokens', 240),
      ...(seed === '' ? {} : { seed: Number(seed) }),
    };
  }

  /** Whether the model writes JSON. */
  get isJson() {
    return new FormData(form()).get('form') === 'json';
  }

  /** @returns {import('../../js/llama/options.js').ResponseFormat | undefined} */
  get #responseFormat() {
    if (!this.isJson) return undefined;
    const schema = this.#schema.value.trim();
    return schema ? { type: 'json_schema', schema: JSON.parse(schema) } : { type: 'json_object' };
  }

  get #schema() {
    return /** @type {HTMLTextAreaElement} */ (byId('schema'));
  }

  /** Why the text is no schema; '' if it may be one. */
  get #schemaProblem() {
    const text = this.#schema.value.trim();
    if (!this.isJson || text === '') return '';
    try {
      const schema = JSON.parse(text);
      const isObject = typeof schema === 'object' && schema !== null && !Array.isArray(schema);
      return isObject ? '' : 'A JSON schema is an object, as in { "type": "object" }.';
    } catch (error) {
      return `This is no JSON: ${/** @type {Error} */ (error).message}`;
    }
  }

  /** Threads of kernels on the CPU; undefined: as many as the browser allows. */
  get threads() {
    return byId('threads').disabled ? undefined : Number(new FormData(form()).get('threads'));
  }

  /** What the model is loaded with. */
  get loading() {
    return this.loadingOn(/** @type {'cpu' | 'gpu'} */ (new FormData(form()).get('backend')));
  }

  /** What a model is loaded with on a device. @param {'cpu' | 'gpu'} backend */
  loadingOn(backend) {
    const activation = /** @type {'int8' | 'int16' | 'f32'} */ (new FormData(form()).get('activation'));
    return backend === 'gpu'
      ? { activation, backend, gpu: gpuOptions }
      : { activation, backend, threads: this.threads };
  }

  get system() {
    return byId('system').value.trim();
  }

  /** @param {string} text */
  set system(text) {
    byId('system').value = text;
    this.summarise();
  }

  /** @returns {boolean} whether all fields hold what they may; the first that does not is shown */
  check() {
    this.#schema.setCustomValidity(this.#schemaProblem);
    const bad = [...form().querySelectorAll('.options-grid :is(input, textarea)')].find(
      (input) => !(/** @type {HTMLInputElement} */ (input).checkValidity()),
    );
    if (bad) {
      byId('options').open = true;
      /** @type {HTMLInputElement} */ (bad).reportValidity();
    }
    return !bad;
  }

  /** After a change that was not made by hand, too. */
  summarise() {
    const { temperature, maxTokens, seed } = this.numbers;
    byId('temperature-value').textContent = String(temperature);
    byId('schema-field').hidden = !this.isJson;
    const { activation, backend } = this.loading;
    const threads = Number(byId('threads').value || 1);
    const onCpu = [activation, `${threads} ${threads === 1 ? 'thread' : 'threads'}`];
    byId('options-summary').textContent = [
      `temperature ${temperature}`,
      `${maxTokens} tokens`,
      seed === undefined ? 'random seed' : `seed ${seed}`,
      ...(this.isJson ? ['JSON'] : []),
      ...(this.system && !byId('system-field').hidden ? ['system prompt'] : []),
      ...(backend === 'gpu' ? ['GPU'] : onCpu),
    ].join(' · ');
  }
}
