/** Symbol.dispose, also for engines that lack it. @type {typeof Symbol.dispose} */
export const dispose = Symbol.dispose ?? Symbol.for('Symbol.dispose');
