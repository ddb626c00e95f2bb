import * as attachments from '../../db/attachments.ts'
import type { Db } from '../../db/database.ts'
import type { VolumeEvent } from '../compute/compute-service.ts'
import type { Parts } from '../parts.ts'
import type { Outcome, WorkUnit } from './kind.ts'

/**
 * The last step of work that changes a volume under its servers. The volume is ready by then, for the server reads it when it is
 * told; that nobody could be told changes nothing about it, and is a message to its owner.
 */
export const NOTIFY = 'notify'

export const isNotice = ({ step }: WorkUnit): boolean => step === NOTIFY

/** The step that follows when a volume has servers, and there is somebody to tell them. */
export async function noticeStep(
  { db, compute }: Pick<Parts, 'db' | 'compute'>,
  volumeId: string,
): Promise<Pick<Outcome, 'next'>> {
  return compute !== null && (await serversOf(db, volumeId)).length > 0 ? { next: NOTIFY } : {}
}

export async function notifyServers(
  { db, compute }: Pick<Parts, 'db' | 'compute'>,
  unit: WorkUnit,
  event: VolumeEvent,
): Promise<Outcome> {
  const servers = await serversOf(db, event.volumeId)
  if (servers.length > 0) await compute?.notify(event, servers, unit.requestId)
  return { commit: async () => {} }
}

async function serversOf(db: Db, volumeId: string): Promise<string[]> {
  const instances = (await attachments.ofVolume(db, volumeId)).map((row) => row.instance_id)
  return [...new Set(instances.filter((id) => id !== null))]
}
