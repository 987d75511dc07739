/**
 * Every instruction set and relaxed dot that can be requested from the library, and the reasons why
 * this engine lacks some of them.
 */
import { ISA_NAMES, openModule } from './raw.js';

/** @import { Dot, Isa } from '../../js/wasm/selftest.js' */

/** @type {{ isa: Isa, dot: Dot | undefined, label: string, skip: string | false }[]} */
export const libraryVariants = [];
for (const isa of ISA_NAMES) {
  const skip = openModule(isa).reason ?? false;
  const dots = isa === 'relaxed' ? /** @type {const} */ (['i16', 'i32']) : [undefined];
  for (const dot of dots) libraryVariants.push({ isa, dot, label: dot ? `${isa} ${dot}` : isa, skip });
}
