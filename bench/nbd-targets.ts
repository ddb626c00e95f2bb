import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, writeSync } from 'node:fs'
import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { fill, startCollie } from './collie-target.ts'

/** A server that is being measured. */
export interface Target {
  name: string
  uri: string
  stop(): Promise<void>
}

/** The servers that this benchmark starts by itself, in the order in which they are compared by default. */
export const BUILT_IN = {
  nbdkit: 'C: nbdkit file on a file that was written once',
  'nbdkit-fua': 'the same with every write forced to the disk (fua filter)',
  reference: 'Node: a bare server on such a file (reference-server.ts)',
  memory: "Collie's server over memory (nbd-memory-server.ts)",
  collie: 'Collie as it is built, on a VDI that was written once',
  'collie-write': 'the same with durability `write`',
} as const

/** `spec` is the name of a built-in target, or NAME=URI of a server that runs already. */
export async function startTarget(spec: string, directory: string, mebibytes: number): Promise<Target> {
  const [name, uri] = splitOnce(spec)
  if (uri !== undefined) return { name, uri, stop: async () => {} }
  if (!(name in BUILT_IN)) throw new Error(`"${spec}" is neither ${Object.keys(BUILT_IN).join(', ')} nor NAME=URI`)
  if (name.startsWith('collie')) return startCollieTarget(name, mebibytes)
  const socket = join(directory, `${name}.sock`)
  const file = join(directory, `${name}.raw`)
  if (name !== 'memory') writeWholeFile(file, mebibytes)
  const child =
    name === 'nbdkit'
      ? start('nbdkit', [...NBDKIT_OPTIONS, '--unix', socket, 'file', file])
      : name === 'nbdkit-fua'
        ? start('nbdkit', [...NBDKIT_OPTIONS, '--filter=fua', '--unix', socket, 'file', file, 'fuamode=force'])
        : name === 'reference'
          ? startScript('reference-server.ts', [socket, file])
          : startScript('nbd-memory-server.ts', [socket, String(mebibytes)])
  await appears(socket, child)
  return {
    name,
    uri: `nbd+unix:///?socket=${socket}`,
    stop: async () => {
      if (child.exitCode !== null || !child.kill('SIGTERM')) return
      await once(child, 'exit')
    },
  }
}

const NBDKIT_OPTIONS = ['--foreground', '--exit-with-parent']

async function startCollieTarget(name: string, mebibytes: number): Promise<Target> {
  const collie = await startCollie(...(name === 'collie-write' ? ['--durability=write'] : []))
  const uri = await collie.exportVdi('bench', mebibytes * 1024 * 1024)
  await fill(uri)
  return { name, uri, stop: collie.stop }
}

/** Node options for the servers under test, `--cpu-prof` for instance, come from NBD_BENCH_NODE_OPTIONS. */
function startScript(script: string, args: string[]): ChildProcess {
  const nodeOptions = process.env.NBD_BENCH_NODE_OPTIONS?.split(' ') ?? []
  const path = fileURLToPath(new URL(script, import.meta.url))
  return start(process.execPath, [...nodeOptions, '--import', import.meta.resolve('tsx'), path, ...args])
}

function start(command: string, args: string[]): ChildProcess {
  return spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] })
}

async function appears(socket: string, child: ChildProcess): Promise<void> {
  for (let attempt = 0; attempt < 300; attempt++) {
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended with ${child.exitCode}`)
    const found = await access(socket).then(
      () => true,
      () => false,
    )
    if (found) return
    await sleep(100)
  }
  throw new Error(`${socket} did not appear`)
}

function writeWholeFile(path: string, mebibytes: number): void {
  const fd = openSync(path, 'w')
  const block = Buffer.alloc(1024 * 1024, 0xa5)
  for (let index = 0; index < mebibytes; index++) writeSync(fd, block)
  closeSync(fd)
}

function splitOnce(spec: string): [string, string | undefined] {
  const at = spec.indexOf('=')
  return at < 0 ? [spec, undefined] : [spec.slice(0, at), spec.slice(at + 1)]
}
