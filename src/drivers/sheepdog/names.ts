/** How volumes and snapshots are called in the store: by their ids, so that any process finds them. */

const VOLUME = 'volume-'
const SNAPSHOT = 'snapshot-'
const CLONE = 'clone-'

export const vdiName = (volumeId: string) => VOLUME + volumeId
export const snapshotTag = (snapshotId: string) => SNAPSHOT + snapshotId
/** Of the snapshot that a clone is made from; it is gone when the clone is there. */
export const cloneTag = (volumeId: string) => CLONE + volumeId

export const isCloneTag = (tag: string) => tag.startsWith(CLONE)

/** The volume that a VDI of this name is; null when it is none of ours. */
export const volumeIdOf = (name: string): string | null => (name.startsWith(VOLUME) ? name.slice(VOLUME.length) : null)

/** The snapshot that a snapshot with this tag is; null when it is none of ours. */
export const snapshotIdOf = (tag: string): string | null =>
  tag.startsWith(SNAPSHOT) ? tag.slice(SNAPSHOT.length) : null
