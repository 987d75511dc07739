/** A button whose first press asks, and whose second one does it: for what cannot be taken back. */
import { announce } from '../jobs.js';

const answerMs = 20_000;

/**
 * @param {HTMLElement} button
 * @param {() => string} question  the button's words after the first press
 * @param {() => void} action
 */
export function askFirst(button, question, action) {
  const words = button.textContent;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const rest = () => {
    clearTimeout(timer);
    timer = undefined;
    button.textContent = words;
  };
  button.addEventListener('click', (event) => {
    // The second click of a double click answers nothing.
    if (event.detail > 1) return;
    if (timer !== undefined) {
      rest();
      action();
      return;
    }
    timer = setTimeout(rest, answerMs);
    button.textContent = question();
    announce(`${question()} Press again within ${answerMs / 1000} seconds.`);
  });
  button.addEventListener('blur', rest);
}
