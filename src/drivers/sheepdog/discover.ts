import { StoreError } from '../../errors.ts'
import type { VdiClient } from '../../vdi/client.ts'
import type { Discovered } from '../driver.ts'
import { isCloneTag, snapshotIdOf, vdiName, volumeIdOf } from './names.ts'

const GIB = 1024 ** 3

/** Everything in the store, in the words of volumes where it has their names. */
export async function discover(vdis: VdiClient): Promise<Discovered> {
  const found: Discovered = { volumes: [], snapshots: [], exports: [], foreign: [] }
  for (const { name, tag, snapshotAt, sizeBytes } of await vdis.list()) {
    const sizeGib = sizeBytes / GIB
    const volumeId = volumeIdOf(name)
    const snapshotId = snapshotIdOf(tag)
    if (volumeId !== null && snapshotAt === 0) found.volumes.push({ id: volumeId, sizeGib })
    else if (volumeId !== null && snapshotId !== null) found.snapshots.push({ id: snapshotId, volumeId, sizeGib })
    else if (volumeId === null || !isCloneTag(tag))
      found.foreign.push({ name: tag === '' ? name : `${name}@${tag}`, sizeGib })
  }
  for (const { id } of found.volumes) {
    found.exports.push(...(await rightsTo(vdis, id)).map(({ attachmentId }) => ({ attachmentId, volumeId: id })))
  }
  return found
}

/** None for a volume that was deleted meanwhile. */
async function rightsTo(vdis: VdiClient, volumeId: string): Promise<{ attachmentId: string }[]> {
  try {
    return await vdis.exportsOf(vdiName(volumeId))
  } catch (error) {
    if (error instanceof StoreError && error.code === 'NoVdi') return []
    throw error
  }
}
