import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { ExportRight } from '../../../src/exports/directory.ts'
import type { NbdLimits } from '../../../src/exports/nbd/limits.ts'
import { createNbdServer, type NbdServer } from '../../../src/exports/nbd/server.ts'
import type { NbdTls } from '../../../src/exports/nbd/session.ts'
import { type Clock, systemClock } from '../../../src/runtime/clock.ts'
import { createLog } from '../../../src/runtime/log.ts'
import { systemNetwork } from '../../../src/runtime/network.ts'
import { MemoryDevice, MemoryDisk, type Schedule } from '../../tools/memory-device.ts'

export const EXPORT_NAME = 'c0ffee'
export const RIGHT_ID = 'attachment-1'

export interface Harness {
  server: NbdServer
  disk: MemoryDisk
  /** Rights by export name; tests add and drop some. */
  rights: Map<string, ExportRight>
  /** Stands between finding a right and telling the server of it. */
  lookupDelay: Promise<void>
  unixPath: string
  tcpAddress: string
}

/** A server with one export on a memory disk, listening on a unix socket and on loopback, closed after the test. */
export async function startServer(
  options: {
    sizeBytes?: number
    readOnly?: boolean
    schedule?: Schedule
    limits?: Partial<NbdLimits>
    clock?: Clock
    tls?: NbdTls
  } = {},
): Promise<Harness> {
  const disk = new MemoryDisk(options.sizeBytes ?? 1024 * 1024)
  const rights = new Map<string, ExportRight>()
  const schedule = options.schedule
  rights.set(EXPORT_NAME, {
    id: RIGHT_ID,
    readOnly: options.readOnly ?? false,
    open: async () => new MemoryDevice(disk, schedule ? { schedule } : {}),
  })
  const server = createNbdServer({
    network: systemNetwork,
    clock: options.clock ?? systemClock,
    log: createLog('silent'),
    exports: {
      lookup: async (name) => {
        const right = rights.get(name)
        await harness.lookupDelay
        return right
      },
    },
    ...(options.limits ? { limits: options.limits } : {}),
    tls: options.tls ?? null,
  })
  const directory = mkdtempSync(join(tmpdir(), 'nbd-test-'))
  const unixPath = await server.listen(join(directory, 'nbd.sock'))
  const tcpAddress = await server.listen('127.0.0.1:0')
  onTestFinished(async () => {
    await server.close()
    rmSync(directory, { recursive: true })
  })
  const harness: Harness = { server, disk, rights, lookupDelay: Promise.resolve(), unixPath, tcpAddress }
  return harness
}

/** Waits until something becomes true, which other events of this process bring about. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}

/** Holds requests back in the device until they are let go. */
export function gate() {
  const held: (() => void)[] = []
  let open = false
  return {
    schedule: (action: () => void) => {
      if (open) action()
      else held.push(action)
    },
    get heldCount() {
      return held.length
    },
    release: () => {
      open = true
      for (const action of held.splice(0)) action()
    },
  }
}

/** Waits until a number has not moved for many turns of the event loop. */
export async function quiet(read: () => number): Promise<void> {
  let last = read()
  for (let turns = 0; turns < 500; turns++) {
    await new Promise((resolve) => setImmediate(resolve))
    if (read() !== last) turns = 0
    last = read()
  }
}
