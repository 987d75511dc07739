/**
 * Texts that a model is asked for, each with its prompt and an answer: three that repeat their prompt, and
 * one that does not. The answers are given, so that what is measured does not depend on what a model with
 * random weights would write.
 */

const LETTER = `Dear Ms Halloran,

thank you for you're letter of the third of May, in which you ask about the boiler in the east wing of the
school. Our engineer has visited the building on Tuesday and looked at the boiler, the pump and the pipes in
the cellar. The boiler is in good order. The pump is nine years old and looses about two litres of water a
day, which is why the pressure falls over night and the radiators on the third floor stay cold in the
morning. We advise to replace the pump before the winter. A new pump of the same size costs 1,240 pounds, and
the work takes about four hours, during which there is no heating in the east wing. If you agree, we could do
it on a Saturday, so that no lesson has to be moved. The pipes in the cellar are sound, but the insulation
has come off in two places near the door, and we would put that right at the same time without a extra
charge. Please let us know until the end of the month weather we should order the pump.

With kind regards,
Peter Nowak`;

const CORRECTED = LETTER.replace("you're letter", 'your letter')
  .replace('has visited the building', 'visited the building')
  .replace('looses about', 'loses about')
  .replace('over night', 'overnight')
  .replace('We advise to replace', 'We advise you to replace')
  .replace('a extra', 'an extra')
  .replace('until the end', 'by the end')
  .replace('weather we', 'whether we');

const REPORT = `The town library will close on the first of October for eleven months while its roof is replaced and the
reading room on the second floor is made larger. The building dates from 1911, and the roof has leaked since
a storm in February 2019 tore off forty square metres of slate. The council has set aside 2.6 million euros
for the work, of which the state pays two thirds. During the works the library lends books from the former
post office in Mill Street, where there is room for 18,000 of its 74,000 volumes. The other books go to a
depot in Harborough, from which readers can order them; a van brings them twice a week, on Tuesdays and
Fridays. The children's department moves to the music school and keeps its opening hours. Events are held in
the town hall. The head of the library, Irene Castellan, expects that about a third fewer books will be lent
while the building is closed. She hopes that the new reading room, which will have ninety seats instead of
fifty and will stay open until ten in the evening, brings back students who now travel to the university
library. Fourteen people work at the library. None of them will be dismissed, and two new posts are planned
for the evening hours.`;

const SUMMARY = `The town library will close on the first of October for eleven months while its roof is replaced and the
reading room on the second floor is made larger. The council has set aside 2.6 million euros for the work, of
which the state pays two thirds. During the works the library lends books from the former post office in Mill
Street, where there is room for 18,000 of its 74,000 volumes; the other books go to a depot in Harborough,
from which a van brings them on Tuesdays and Fridays. The children's department moves to the music school.
Irene Castellan, the head of the library, hopes that the new reading room, which will have ninety seats
instead of fifty and will stay open until ten in the evening, brings back students. None of the fourteen
people who work at the library will be dismissed, and two new posts are planned for the evening hours.`;

const CODE = `export class Ledger {
  constructor(currency) {
    this.currency = currency;
    this.entries = [];
  }

  add(account, amount, date, note = '') {
    if (!Number.isInteger(amount)) throw new TypeError('amount must be an integer number of cents');
    this.entries.push({ account, amount, date, note });
  }

  balance(account) {
    let sum = 0;
    for (const entry of this.entries) {
      if (entry.account === account) sum += entry.amount;
    }
    return sum;
  }

  between(first, last) {
    const found = [];
    for (const entry of this.entries) {
      if (entry.date >= first && entry.date <= last) found.push(entry);
    }
    return found;
  }

  report() {
    const lines = [];
    const accounts = new Set(this.entries.map((entry) => entry.account));
    for (const account of accounts) {
      lines.push(account + ': ' + (this.balance(account) / 100).toFixed(2) + ' ' + this.currency);
    }
    return lines.join('\\n');
  }
}
`;

const CHANGED = CODE.replaceAll('entries', 'bookings').replaceAll('entry', 'booking');

const STORY = `Nobody in Varnholt remembered when the clock on the gate had stopped. Its hands pointed at twenty past four,
and that was the hour at which, by custom, bakers lit their ovens and lovers said goodbye. One wet evening a
stranger with a ladder asked Old Marta for permission to climb up. She gave it, mostly because his coat was
thin and she wished him gone. He worked by lamplight until midnight, humming, and dropped nothing but a single
brass screw. At dawn the bell struck six. Dogs barked, windows flew open, a child began to weep; even the
river seemed to hesitate beneath the bridge. By noon the mayor had called a meeting. Some wanted the fellow
paid, others wanted him driven out, since time, once loosened, might carry anything away. Marta said little.
Under her apron she turned the screw between two fingers and wondered which wheel up there was missing it,
how long it would hold, and whether forgetting could be mended as easily as that.`;

/** @typedef {{ name: string, repeats: boolean, prompt: string, answer: string }} BenchText */

/** @type {BenchText[]} */
export const TEXTS = [
  {
    name: 'editing',
    repeats: true,
    prompt: `Correct the mistakes in this letter:\n\n${LETTER}\n\n`,
    answer: CORRECTED,
  },
  { name: 'summarising', repeats: true, prompt: `Shorten this report:\n\n${REPORT}\n\n`, answer: SUMMARY },
  { name: 'code', repeats: true, prompt: `Rename entries to bookings:\n\n${CODE}\n`, answer: CHANGED },
  {
    name: 'a story',
    repeats: false,
    prompt: 'Tell a story about a clock that stands still.\n\n',
    answer: STORY,
  },
];
