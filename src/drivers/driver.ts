/**
 * The driver contract: what a storage backend does for the service. Cinder's words above this line, the backend's
 * own below it.
 *
 * What a driver promises, each proved for every driver by test/drivers/contract.ts:
 *
 * 1. Every method may be called again with the same arguments after a crash or a timeout, whether or not the first call
 *    took effect, and then ends as if it had been called once.
 * 2. What a method did is durable when it resolves.
 * 3. A method that rejects has left nothing behind that a repeat or the matching delete would not clean up. It rejects
 *    with a ServiceError: VolumeNotFound or SnapshotNotFound for a missing source, InvalidVolume or InvalidSnapshot for
 *    one in use, ServiceUnavailable while the backend cannot be reached, BackendFailure for the rest, with a reason that an
 *    operator can act on.
 * 4. Deleting what does not exist succeeds.
 * 5. No method keeps state in the process: another process with the same backend may go on where this one ended.
 */
export interface VolumeDriver {
  readonly capabilities: DriverCapabilities
  /** Repeated until it succeeds; while it does not, the other methods reject with ServiceUnavailable. */
  start(): Promise<void>
  stop(): Promise<void>
  stats(): Promise<PoolStats[]>

  /** A thin volume that reads as zeros. */
  createVolume(volume: NewVolume): Promise<void>
  /**
   * A volume with the content of the snapshot; `volume.sizeGib` is at least the snapshot's. What it shares with the snapshot may have
   * as many copies as that.
   */
  createVolumeFromSnapshot(volume: NewVolume, snapshot: SnapshotRef): Promise<void>
  /** A volume with the content that `source` has at one moment during the call. What it shares with it as from a snapshot. */
  createClonedVolume(volume: NewVolume, source: VolumeRef): Promise<void>
  /** InvalidVolume while a snapshot of it exists. Rights that an abandoned createExport left are taken back. */
  deleteVolume(volume: VolumeRef): Promise<void>
  /** Grows the volume to `newSizeGib`; open devices see it at once, connected initiators when they look again. */
  extendVolume(volume: VolumeRef, newSizeGib: number): Promise<void>

  /**
   * Gives the volume with its snapshots another number of copies, while it is used; null for as many as it would have by itself. When it
   * resolves, that holds for what is written from then on; copies of what there is are made, or go, in the background. A driver
   * without it makes every volume in one way.
   */
  alterCopies?(volume: VolumeRef, copies: VolumeCopies | null): Promise<void>

  /** The content of the volume at one moment during the call, also while it is written to. */
  createSnapshot(snapshot: SnapshotRef): Promise<void>
  /**
   * Snapshots of several volumes at one moment, also while they are written to: of two writes of which one was answered before the
   * other was sent, no snapshot has the later where one lacks the earlier. All of them are there when it resolves, and none
   * when it rejects.
   */
  createGroupSnapshot(snapshots: readonly SnapshotRef[]): Promise<void>
  /** Volumes made from the snapshot keep their content. */
  deleteSnapshot(snapshot: SnapshotRef): Promise<void>
  /**
   * The volume holds again what the snapshot holds, and stays the same volume: its id, its other snapshots and the
   * rights to reach it remain. Both have one size. A repeat discards what was written since, so nobody may be writing.
   */
  revertToSnapshot(snapshot: SnapshotRef): Promise<void>

  /**
   * Gives one attachment the right to reach the volume, and says how. The right is a record in the backend: it
   * outlives this process and ends only with removeExport. A repeat for the same attachment replaces the right, and the
   * connection information that an earlier call returned stops working.
   */
  createExport(volume: VolumeRef, attachment: AttachmentRef): Promise<ConnectionInfo>
  /**
   * Takes the right back. When it resolves, nothing sent under the right will change the volume any more, however late
   * it arrives.
   */
  removeExport(volume: VolumeRef, attachmentId: string): Promise<void>
  /**
   * Gives every right to the volume that there is other limits, or none, while it is used; those that are given out later bring
   * theirs with them. A driver without it leaves limits to the hypervisor.
   */
  limitVolume?(volume: VolumeRef, limits: VolumeLimits | null): Promise<void>

  /**
   * Lets the database with this id be the one that says what the backend holds, unless another one is already; `replace` puts it
   * in the place of that. Answers the id of the one that is from now on. Two databases over one backend would each give away what
   * the other holds.
   */
  drive?(databaseId: string, options: { replace: boolean }): Promise<string>

  /**
   * What the backend holds, whoever made it; a driver without it cannot be compared with the database. Read bit by bit, while the
   * backend goes on: only what is there from before the call until after it is sure to be in the answer.
   */
  discover?(): Promise<Discovered>

  /** What `manageVolume` and `manageSnapshot` could take over, and what is taken already; a driver without it takes over nothing. */
  listManageable?(): Promise<Manageable>
  /**
   * Makes what the backend calls `name` this volume, with its snapshots; answers its size, which is a whole number of GiB from then
   * on. Rejects with VolumeNotFound when there is nothing of that name, InvalidVolume while somebody uses it.
   */
  manageVolume?(volume: Pick<VolumeRef, 'id'>, name: string): Promise<{ sizeGib: number }>
  /** Makes the volume's snapshot that the backend calls `name` this one. Rejects with SnapshotNotFound when there is none. */
  manageSnapshot?(snapshot: SnapshotRef, name: string): Promise<void>

  /**
   * Opens the bytes of a volume for the service itself, which fills a volume that nobody uses: from a backup, from an image.
   * Rejects with InvalidVolume while it is exported.
   */
  openVolume(volume: VolumeRef): Promise<VolumeData>
  /** Opens the bytes of a snapshot to be read. */
  openSnapshot(snapshot: SnapshotRef): Promise<VolumeData>
}

export interface Discovered {
  volumes: VolumeRef[]
  snapshots: SnapshotRef[]
  /** Rights to volumes, by the attachment that they were given to. */
  exports: { attachmentId: string; volumeId: string }[]
  /** What bears no name that this driver would give: somebody else's, or one that could be taken over. */
  foreign: { name: string; sizeGib: number }[]
}

/** In the backend's own names. */
export interface Manageable {
  /** `volumeId` is what the name says, whether or not there is such a volume; `reason` is why it cannot be taken over. */
  volumes: { name: string; volumeId: string | null; sizeGib: number; reason: string | null }[]
  /** `volumeName` is what the backend calls the volume that it is of. */
  snapshots: {
    name: string
    snapshotId: string | null
    volumeName: string
    volumeId: string | null
    sizeGib: number
    reason: string | null
  }[]
}

/** Bytes of a volume or a snapshot. Offsets and lengths are of any alignment, and within `sizeBytes`. */
export interface VolumeData {
  readonly sizeBytes: number
  /** False where what was never written may read as anything; absent where it reads as zeros. */
  readonly startsAsZeros?: boolean
  /** What a range holds, in order, without gaps. A `hole` reads as zeros; `data` may be anything. */
  extents(offset: number, lengthBytes: number): Promise<DataExtent[]>
  /**
   * Names for what a range of a snapshot holds, in order, without gaps, so that who has seen another one knows what has changed without
   * reading. What has the same mark at the same offset and of the same length, of whatever snapshot of whatever volume, and long after
   * it was deleted, holds the same bytes; what has another one, or null, may or may not. A range begins at a multiple of MARKED_BYTES, and
   * is a multiple of that long or goes to the end. A driver without it has everything read.
   */
  marks?(offset: number, lengthBytes: number): Promise<ContentMark[]>
  /** Fills the target. */
  read(offset: number, target: Buffer): Promise<void>
  write(offset: number, source: Buffer): Promise<void>
  /** Makes a range read as zeros, and gives its space back as far as that goes. */
  discard(offset: number, lengthBytes: number): Promise<void>
  /** What was written and discarded is durable when it resolves. */
  flush(): Promise<void>
  close(): Promise<void>
}

/** Of what may be asked for marks. */
export const MARKED_BYTES = 4 * 1024 * 1024

export interface ContentMark {
  lengthBytes: number
  /** At most 150 characters. */
  mark: string | null
}

export interface DataExtent {
  lengthBytes: number
  kind: 'data' | 'hole'
}

export interface DriverCapabilities {
  /** `storage_protocol` as schedulers and pools report it. */
  storageProtocol: string
  thinProvisioning: boolean
  multiattach: boolean
  /** Whether a volume can grow while it is attached. */
  extendInUse: boolean
}

export interface VolumeRef {
  id: string
  sizeGib: number
}

/** A volume that is to be made. */
export interface NewVolume extends VolumeRef {
  /** Absent or null for as many as the backend makes by itself. */
  copies?: VolumeCopies | null
}

/** On how many nodes of the backend each part of a volume is. */
export interface VolumeCopies {
  /** From 1 to as many as the pool's `sizeFactors`. */
  copies: number
  /** So many at least have what is acknowledged; absent for what the backend holds to be right. */
  copiesMin?: number
}

export interface SnapshotRef {
  id: string
  volumeId: string
  sizeGib: number
}

export interface AttachmentRef {
  id: string
  mode: 'rw' | 'ro'
  connector: Connector
  /** How fast the volume may go under the right; absent or null for as fast as it can. */
  limits?: VolumeLimits | null
}

/** Limits that all hold at the same time: of a read, those in all and those of reads. What is not named has none. */
export interface VolumeLimits {
  totalIops?: VolumeRate
  readIops?: VolumeRate
  writeIops?: VolumeRate
  totalBytes?: VolumeRate
  readBytes?: VolumeRate
  writeBytes?: VolumeRate
}

/** Operations or bytes. */
export interface VolumeRate {
  /** Above 0. */
  perSecond: number
  /** What goes after a rest, above `perSecond`, and for how many seconds. */
  burstPerSecond?: number
  burstSeconds?: number
}

/** What an initiator says about itself (`connector` of the attachments API); unknown keys are kept. */
export type Connector = Record<string, unknown> & { host?: string | null | undefined; ip?: string | null | undefined }

/** Flat, as attachments return it: `driver_volume_type` beside the data keys (Cinder API, `connection_info`). */
export type ConnectionInfo = { driver_volume_type: string } & Record<string, unknown>

/** GiB, or one of the words by which a backend says that it cannot tell. */
export type Capacity = number | 'infinite' | 'unknown'

export interface PoolStats {
  poolName: string
  totalCapacityGib: Capacity
  freeCapacityGib: Capacity
  /** Of all volumes there, whoever made them; more of those with more copies, as `sizeFactors` says. */
  provisionedCapacityGib: number
  /**
   * What one GiB of a volume takes of this capacity that has 1, 2, … copies: no volume may have more copies than there are numbers. One
   * that asks for no number of copies takes 1.
   */
  sizeFactors: readonly number[]
  reservedPercentage: number
  maxOverSubscriptionRatio: number
}
