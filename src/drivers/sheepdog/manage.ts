import { ServiceError, StoreError } from '../../errors.ts'
import type { VdiClient, VdiInfo } from '../../vdi/client.ts'
import type { Manageable, SnapshotRef } from '../driver.ts'
import { isCloneTag, snapshotIdOf, snapshotTag, vdiName, volumeIdOf } from './names.ts'

const GIB = 1024 ** 3

/** VDIs that somebody else has made, or that were let go, as volumes. A VDI is named by its name, its snapshots by their tags. */
export async function listManageable(vdis: VdiClient): Promise<Manageable> {
  const all = await vdis.list()
  const working = all.filter(({ snapshotAt }) => snapshotAt === 0)
  const locked = new Set((await vdis.listLocks()).map(({ name }) => name))
  const names = new Set(working.map(({ name }) => name))
  return {
    volumes: working.map(({ name, sizeBytes }) => ({
      name,
      volumeId: volumeIdOf(name),
      sizeGib: wholeGib(sizeBytes),
      reason: locked.has(name) ? 'locked by a client of the store' : null,
    })),
    snapshots: all
      .filter(({ name, snapshotAt }) => snapshotAt > 0 && names.has(name))
      .map(({ name, tag, sizeBytes }) => ({
        name: tag,
        snapshotId: snapshotIdOf(tag),
        volumeName: name,
        volumeId: volumeIdOf(name),
        sizeGib: wholeGib(sizeBytes),
        reason: whyNot(tag),
      })),
  }
}

function whyNot(tag: string): string | null {
  if (tag === '') return 'it has no tag'
  return isCloneTag(tag) ? 'a volume is being made from it' : null
}

/** Gives a VDI the name of the volume, and a size in whole GiB. */
export async function manageVolume(vdis: VdiClient, volumeId: string, name: string): Promise<{ sizeGib: number }> {
  const own = vdiName(volumeId)
  const vdi = (await workingVdi(vdis, own)) ?? (await workingVdi(vdis, name)) // an earlier call may have renamed it
  if (vdi === undefined) throw new ServiceError('VolumeNotFound', { volume_id: name })
  const sizeGib = Math.max(1, wholeGib(vdi.sizeBytes))
  if (vdi.name !== own) {
    const [right] = await vdis.exportsOf(name)
    if (right !== undefined)
      throw new ServiceError('InvalidVolume', { reason: `VDI ${name} is under attachment ${right.attachmentId}.` })
    await vdis.rename(name, own)
  }
  if (vdi.sizeBytes < sizeGib * GIB) await vdis.resize(vdi.vid, sizeGib * GIB)
  return { sizeGib }
}

/** Gives a snapshot of the volume's VDI the tag of the snapshot. */
export async function manageSnapshot(vdis: VdiClient, { id, volumeId }: SnapshotRef, name: string): Promise<void> {
  const [vdi, tag] = [vdiName(volumeId), snapshotTag(id)]
  const tags = (await vdis.listOf(vdi)).filter(({ snapshotAt }) => snapshotAt > 0).map((snapshot) => snapshot.tag)
  if (tags.includes(tag)) return
  if (!tags.includes(name)) throw new ServiceError('SnapshotNotFound', { snapshot_id: name })
  try {
    await vdis.retag(vdi, name, tag)
  } catch (error) {
    if (error instanceof StoreError && error.code === 'VdiExists') return // a repeat of the call was faster
    throw error
  }
}

async function workingVdi(vdis: VdiClient, name: string): Promise<VdiInfo | undefined> {
  return (await vdis.listOf(name)).find(({ snapshotAt }) => snapshotAt === 0)
}

const wholeGib = (sizeBytes: number): number => Math.ceil(sizeBytes / GIB)
