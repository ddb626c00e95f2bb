/**
 * How Nova goes over from one volume to another under a server that runs (compute/api.py and compute/manager.py, swap_volume): what it
 * asks of block storage, in its order, and what it does when that fails.
 */

/** What Nova calls, with the rights of a service: our own services, or an API. */
export interface BlockStorage {
  beginDetaching(volumeId: string): Promise<void>
  rollDetaching(volumeId: string): Promise<void>
  createAttachment(volumeId: string, server: string): Promise<string>
  /** Answers the connection information. */
  updateAttachment(id: string): Promise<object>
  completeAttachment(id: string): Promise<void>
  deleteAttachment(id: string): Promise<void>
  /** Answers the volume that the server has from then on. */
  completeMigration(oldId: string, newId: string, failed: boolean): Promise<string>
}

/** A volume that a server has. */
export interface ServerVolume {
  attachmentId: string
  connection: object
}

export type SwapStage = 'connect' | 'copy' | 'complete' | 'disconnect' | 'report'

export interface Swap {
  server: string
  oldId: string
  newId: string
  /** Volumes of the server, by id. */
  held: Map<string, ServerVolume>
}

export interface SwapWorld {
  /** May be another one in the middle of a swap. */
  storage: BlockStorage
  /** Makes the new volume hold what the old one holds. */
  copy(before: object, after: object, swap: Swap): Promise<void>
  /** Before each stage; what it throws is a failure of the stage, and ComputeHostLost the end of everything. */
  enter(stage: SwapStage): Promise<void>
}

/** nova-compute is gone, and nobody else does what it was at. */
export class ComputeHostLost extends Error {}

/** The part that a request waits for. Rejects as storage did, and then has left nothing. */
export async function beginSwap({ storage }: SwapWorld, { server, oldId, newId }: Swap): Promise<string> {
  await storage.beginDetaching(oldId)
  try {
    return await storage.createAttachment(newId, server)
  } catch (error) {
    await storage.rollDetaching(oldId)
    throw error
  }
}

/** The rest, on the host of the server. Never rejects but with ComputeHostLost; `errors` takes what storage refused. */
export async function finishSwap(world: SwapWorld, swap: Swap, attachmentId: string, errors: unknown[]): Promise<void> {
  const { oldId, newId, held } = swap
  const old = held.get(oldId)!
  let connection: object = {}
  let failed = false
  const attempt = async (stage: SwapStage, act: () => Promise<void>) => {
    try {
      await world.enter(stage)
      await act()
    } catch (error) {
      if (error instanceof ComputeHostLost) throw error
      errors.push(error)
      failed = true
    }
  }
  await attempt('connect', async () => {
    connection = await world.storage.updateAttachment(attachmentId)
  })
  if (!failed) await attempt('copy', () => world.copy(old.connection, connection, swap))
  if (!failed) await attempt('complete', () => world.storage.completeAttachment(attachmentId))
  const hasFailed = failed
  await attempt('disconnect', () => world.storage.deleteAttachment(hasFailed ? attachmentId : old.attachmentId))
  await attempt('report', async () => {
    const id = await world.storage.completeMigration(oldId, newId, hasFailed)
    if (hasFailed) return
    held.delete(oldId)
    held.set(id, { attachmentId, connection })
  })
}
