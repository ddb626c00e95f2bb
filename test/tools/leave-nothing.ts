import path from 'node:path'
import { afterEach } from 'vitest'
import { CONTROL_SOCKET } from '../../src/control/messages.ts'
import type { Result } from '../../src/control/methods.ts'
import { connectControl } from '../../src/control/socket-client.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import type { Collie } from './collie.ts'
import { Dog } from './dog.ts'
import { SheepRefusal } from './sheep-conversation.ts'
import { RESULT } from './sheep-layouts.ts'

const POLL_MS = 50
const RECLAIM_MS = 30_000

/**
 * For a test file: after each test the VDIs that it left are deleted as a user of dog deletes them. Then the store has to
 * be sound, and to end up without an object.
 */
export function leaveNothing(collie: () => Collie): void {
  afterEach(async () => {
    if (!collie().isRunning) await collie().start()
    await deleteAll(new Dog(collie().info.addresses.sheep!))
    await untilEmpty(collie())
  })
}

async function deleteAll(dog: Dog): Promise<void> {
  for (const { name, tag, snapId, snapshotTime } of await dog.list()) {
    const isSnapshot = snapshotTime !== 0n
    if (!isSnapshot) {
      await dog.unlock(name).catch((error: unknown) => {
        if (!(error instanceof SheepRefusal && error.result === RESULT.VDI_NOT_LOCKED)) throw error
      })
    }
    if (isSnapshot && tag === '') throw new Error(`snapshot ${snapId} of ${name} has no tag`)
    await dog.delete(name, tag)
  }
}

async function untilEmpty(collie: Collie): Promise<void> {
  const control = await connectControl(systemNetwork, path.join(collie.dataDir, CONTROL_SOCKET))
  try {
    const deadline = Date.now() + RECLAIM_MS
    for (;;) {
      const audit: Result<'audit'> = await control.call('audit', {})
      if (!audit.sound) throw new Error(`the store is not sound: ${JSON.stringify(audit)}`)
      if (audit.checked.objects === 0) return
      if (Date.now() > deadline) throw new Error(`after ${RECLAIM_MS} ms still ${JSON.stringify(audit)}`)
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  } finally {
    control.close()
  }
}
