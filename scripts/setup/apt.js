/**
 * Installs system packages on Debian and its derivatives. Elsewhere, or without root, it prints a
 * line that says what to install.
 */
import { existsSync } from 'node:fs';
import { ask, environment, run, SetupError, say, which } from './run.js';

/** Whether this process may install packages itself. */
export const canInstall = () =>
  process.platform === 'linux' &&
  process.getuid?.() === 0 &&
  existsSync('/etc/debian_version') &&
  Boolean(which('apt-get'));

/**
 * @param {string[]} packages  Debian's names
 * @param {string} purpose
 */
export async function aptInstall(packages, purpose) {
  if (packages.length === 0) return;
  const names = packages.join(' ');
  if (!canInstall()) {
    const command = existsSync('/etc/debian_version') ? `sudo apt-get install ${names}` : `install: ${names}`;
    throw new SetupError(
      `${purpose} needs programs that are missing here; run this, then try again:  ${command}`,
    );
  }
  say(`installing ${names} (${purpose})`);
  const env = { ...environment(), DEBIAN_FRONTEND: 'noninteractive' };
  const install = ['-qq', 'install', '-y', '--no-install-recommends', ...packages];
  if (ask('apt-get', install, env) !== undefined) return;
  // A new system has no package lists, and an old one may list packages that no longer exist.
  await run('apt-get', ['-q', 'update'], { env, quiet: true });
  await run('apt-get', install, { env, quiet: true, hint: `apt-get install ${names}` });
}
