import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { commandExists } from './require-command.ts'
import { runCommand } from './run-command.ts'

const SCRIPT = path.join(import.meta.dirname, 'ask-castellan.py')

/** Why there is no castellan to ask with, or false. */
export function withoutCastellan(): string | false {
  try {
    if (commandExists('/usr/bin/python3'))
      execFileSync('/usr/bin/python3', ['-c', 'import castellan, barbicanclient'], { stdio: 'ignore' })
    return !commandExists('/usr/bin/python3') && 'castellan is missing: apt-get install python3-castellan'
  } catch {
    return 'castellan is missing: apt-get install python3-castellan python3-barbicanclient'
  }
}

/** The passphrase of a volume, as Nova finds it out: with its castellan, the token of a user, and the key manager of the catalog. */
export function passphraseByCastellan(
  keyId: string,
  as: { authUrl: string; token: string; projectId: string },
): Promise<string> {
  const env = { OS_AUTH_URL: as.authUrl, OS_TOKEN: as.token, OS_PROJECT_ID: as.projectId }
  return runCommand(['/usr/bin/python3', SCRIPT, keyId], { env })
}
