import { existsSync, readdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { runCommand } from './run-command.ts'

/** Begins the names of what outlives a process that is killed, so that another one can tell whose it was. */
export const OWN_PREFIX = `collie-test-${process.pid}-`

const OWNED = /^collie-test-(\d+)-/

const isLeftOver = (name: string) => {
  const owner = OWNED.exec(name)?.[1]
  return owner !== undefined && !existsSync(`/proc/${owner}`)
}

/** Removes directories that test processes of before left when they were killed. */
export function removeLeftDirectories(parent: string): void {
  for (const name of readdirSync(parent).filter(isLeftOver)) {
    rmSync(path.join(parent, name), { recursive: true, force: true })
  }
}

/** Removes the network namespaces that they left. */
export async function removeLeftNamespaces(): Promise<void> {
  const names = (await runCommand(['ip', 'netns', 'list'])).split('\n').map((line) => line.split(' ')[0]!)
  for (const name of names.filter(isLeftOver)) await runCommand(['ip', 'netns', 'del', name])
}

/** Words before a command that is to end with this process, however this ends. */
export const ENDS_WITH_US = ['setpriv', '--pdeathsig', 'KILL'] as const
