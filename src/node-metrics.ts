import type { NbdServer } from './exports/nbd/server.ts'
import { type Sample, Samples } from './metrics/samples.ts'
import type { LoopLag } from './runtime/loop-lag.ts'
import { processUsage } from './runtime/process-usage.ts'
import type { DiskInfo } from './sheep/disks/disk-array.ts'
import { DISK_STATES } from './sheep/disks/identity.ts'
import type { OperationMeter } from './sheep/operation-meter.ts'
import type { SheepServer } from './sheep/server.ts'
import type { Sheep } from './sheep/sheep.ts'

export interface NodeParts {
  sheep: Sheep
  server: SheepServer
  /** Null without the role `gateway`. */
  nbd: NbdServer | null
  operations: OperationMeter
  lag: LoopLag
  roles: readonly string[]
}

/** What the store side tells of itself. */
export async function collectNode(parts: NodeParts): Promise<Sample[]> {
  const samples = new Samples()
  if (parts.nbd) addNbd(samples, parts.nbd)
  addDoor(samples, parts.server)
  addOperations(samples, parts)
  addState(samples, parts.sheep)
  await addStore(samples, parts.sheep)
  samples.addThread('store', parts.lag.seconds)
  // With the API in the same process, that tells about the process.
  if (!parts.roles.includes('api')) samples.addProcess(await processUsage(), parts.roles)
  return samples.list
}

function addNbd(samples: Samples, { stats, meter }: NbdServer): void {
  samples.add('collie_nbd_connections', stats.connections)
  samples.add('collie_nbd_refused_connections_total', stats.refusedConnections)
  samples.add('collie_nbd_stuck_connections_total', stats.stuckConnections)
  samples.add('collie_nbd_waiting_connections', stats.waitingConnections)
  samples.add('collie_nbd_common_bytes', stats.commonBytes)
  samples.add('collie_nbd_stalls_total', stats.stalls)
  samples.add('collie_nbd_requests_in_flight', meter.requestsInFlight)
  samples.add('collie_nbd_in_flight_bytes', meter.bytesInFlight)
  for (const { command, requests, bytes, errors, seconds } of meter.counts()) {
    if (requests === 0) continue
    samples.add('collie_nbd_requests_total', requests, { command })
    samples.add('collie_nbd_request_bytes_total', bytes, { command })
    samples.add('collie_nbd_request_duration_seconds', seconds, { command })
    samples.addEach('collie_nbd_request_errors_total', 'error', errors, { command })
  }
}

function addDoor(samples: Samples, { stats }: SheepServer): void {
  samples.add('collie_sheep_connections', stats.connections)
  samples.add('collie_sheep_leaving_connections', stats.leavingConnections)
  samples.add('collie_sheep_refused_connections_total', stats.refusedConnections)
  samples.add('collie_sheep_stuck_connections_total', stats.stuckConnections)
  samples.add('collie_sheep_waiting_connections', stats.waitingConnections)
  samples.add('collie_sheep_common_bytes', stats.commonBytes)
  samples.add('collie_sheep_stalls_total', stats.stalls)
}

function addOperations(samples: Samples, { operations, sheep }: NodeParts): void {
  samples.add('collie_operations_in_flight', operations.inFlight)
  samples.add('collie_sessions', sheep.sessions.size)
  for (const { operation, seconds, bytes, errors } of operations.counts()) {
    samples.add('collie_operation_duration_seconds', seconds, { operation })
    samples.add('collie_operation_bytes_total', bytes, { operation })
    samples.addEach('collie_operation_errors_total', 'result', errors, { operation })
  }
}

function addState(samples: Samples, { state }: Sheep): void {
  const { size, workingCount, snapshotCount } = state.vdis
  samples.add('collie_vdis', workingCount)
  samples.add('collie_snapshots', snapshotCount)
  samples.add('collie_deleted_vdis', size - workingCount - snapshotCount)
  samples.add('collie_exports', state.exports.size)
  samples.add('collie_provisioned_bytes', state.vdis.provisionedBytes)
}

async function addStore(samples: Samples, sheep: Sheep): Promise<void> {
  const { objects, totalBytes, freeBytes, corruptBlocks } = await sheep.stats()
  const { loadedObjects, reserveBytes, keptBytes, journal, checkpoints, placedBytes } = sheep.measures()
  samples.add('collie_objects', objects)
  samples.add('collie_loaded_objects', loadedObjects)
  samples.add('collie_corrupt_blocks_total', corruptBlocks)
  samples.add('collie_space_total_bytes', totalBytes)
  samples.add('collie_space_free_bytes', freeBytes)
  samples.add('collie_space_kept_bytes', keptBytes)
  samples.add('collie_space_reserve_bytes', reserveBytes)
  addDisks(samples, await sheep.disks.list())
  samples.add('collie_journal_frames_total', journal.frames)
  samples.add('collie_journal_written_bytes_total', journal.bytes)
  samples.add('collie_journal_sync_duration_seconds', journal.syncSeconds)
  samples.add('collie_journal_waiting_transactions', journal.waiting)
  samples.add('collie_journal_active_bytes', journal.activeBytes)
  samples.add('collie_journal_segment_bytes', journal.segmentBytes)
  samples.add('collie_placed_written_bytes_total', placedBytes)
  samples.add('collie_checkpoint_duration_seconds', checkpoints.seconds)
  samples.add('collie_checkpoint_written_bytes_total', checkpoints.bytes)
}

function addDisks(samples: Samples, disks: readonly DiskInfo[]): void {
  for (const state of DISK_STATES) {
    samples.add('collie_disks', disks.filter((disk) => disk.state === state).length, { state })
  }
  for (const { id, totalBytes, freeBytes, objects } of disks) {
    const labels = { disk: id }
    samples.add('collie_disk_total_bytes', totalBytes, labels)
    samples.add('collie_disk_free_bytes', freeBytes, labels)
    samples.add('collie_disk_objects', objects, labels)
  }
}
