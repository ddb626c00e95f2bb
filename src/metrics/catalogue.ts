/**
 * Every family of metrics that Collie shows, with base units (seconds, bytes) in their names. Labels have few values, all of
 * them names of ours: never an id, a name or a project of a tenant.
 *
 * Who adds one adds a row here; docs/metrics.md is written from these rows.
 */
export interface Family {
  type: 'counter' | 'gauge' | 'histogram'
  labels: readonly string[]
  help: string
  /** Which side of the program tells it: the store's and the gateway's is absent while they cannot be reached. */
  side: 'store' | 'api' | 'both'
}

const family = (side: Family['side'], type: Family['type'], labels: readonly string[], help: string): Family => ({
  type,
  labels,
  help,
  side,
})

export const FAMILIES = {
  collie_build_info: family('api', 'gauge', ['version'], 'Always 1; the label says which version answers.'),
  collie_store_up: family('api', 'gauge', [], '1 when the store answered in time and its disk works, else 0.'),

  collie_nbd_connections: family('store', 'gauge', [], 'NBD connections now, with those in their handshake.'),
  collie_nbd_refused_connections_total: family(
    'store',
    'counter',
    [],
    'NBD connections ended because the client broke the protocol, took too long or came on top of a limit.',
  ),
  collie_nbd_stuck_connections_total: family(
    'store',
    'counter',
    [],
    'NBD connections dropped because the client neither read its replies nor wrote on.',
  ),
  collie_nbd_waiting_connections: family(
    'store',
    'gauge',
    [],
    'NBD connections that wait for memory that others have. More than none for long: clients are slow or too many.',
  ),
  collie_nbd_common_bytes: family('store', 'gauge', [], 'What is taken of the memory that NBD connections share.'),
  collie_nbd_stalls_total: family(
    'store',
    'counter',
    [],
    'Times that the process stood still for so long that it dropped its NBD connections.',
  ),
  collie_nbd_requests_total: family('store', 'counter', ['command'], 'NBD requests read, also those refused.'),
  collie_nbd_request_errors_total: family(
    'store',
    'counter',
    ['command', 'error'],
    'NBD requests answered with an error, by its name in the protocol.',
  ),
  collie_nbd_request_bytes_total: family(
    'store',
    'counter',
    ['command'],
    'Bytes of volumes read, written, discarded or zeroed over NBD.',
  ),
  collie_nbd_request_duration_seconds: family(
    'store',
    'histogram',
    ['command'],
    'Time from an NBD request to the answer of the volume, without those refused at once.',
  ),
  collie_nbd_requests_in_flight: family('store', 'gauge', [], 'NBD requests that the volumes have not answered yet.'),
  collie_nbd_in_flight_bytes: family('store', 'gauge', [], 'Memory that the data of those requests takes.'),

  collie_operation_duration_seconds: family(
    'store',
    'histogram',
    ['operation'],
    'Time that the store took for an operation, by the name of its Sheepdog opcode.',
  ),
  collie_operation_errors_total: family(
    'store',
    'counter',
    ['operation', 'result'],
    'Operations of the store that failed, by the name of the Sheepdog result.',
  ),
  collie_operation_bytes_total: family(
    'store',
    'counter',
    ['operation'],
    'Bytes of VDIs read, written, discarded or zeroed by operations that succeeded.',
  ),
  collie_operations_in_flight: family('store', 'gauge', [], 'Operations of the store that are not answered yet.'),
  collie_sheep_connections: family(
    'store',
    'gauge',
    [],
    'Connections that speak Sheepdog: old clients, and the API with some of its own.',
  ),
  collie_sheep_leaving_connections: family(
    'store',
    'gauge',
    [],
    'Sheepdog connections that are over, and whose last requests are still being done.',
  ),
  collie_sheep_refused_connections_total: family(
    'store',
    'counter',
    [],
    'Sheepdog connections ended because the client broke the protocol, or gave way or came on top of a limit.',
  ),
  collie_sheep_stuck_connections_total: family(
    'store',
    'counter',
    [],
    'Sheepdog connections dropped because the client neither read its answers nor wrote on.',
  ),
  collie_sheep_waiting_connections: family(
    'store',
    'gauge',
    [],
    'Sheepdog connections that wait for memory that others have.',
  ),
  collie_sheep_common_bytes: family(
    'store',
    'gauge',
    [],
    'What is taken of the memory that Sheepdog connections share.',
  ),
  collie_sheep_stalls_total: family(
    'store',
    'counter',
    [],
    'Times that the process stood still for so long that it dropped its Sheepdog connections.',
  ),
  collie_sessions: family('store', 'gauge', [], 'Open sessions on VDIs: one for each client that reads or writes one.'),

  collie_vdis: family('store', 'gauge', [], 'Working VDIs, each the store side of a volume.'),
  collie_snapshots: family('store', 'gauge', [], 'Snapshots in the store.'),
  collie_deleted_vdis: family('store', 'gauge', [], 'Deleted VDIs and snapshots whose space is not reclaimed yet.'),
  collie_exports: family('store', 'gauge', [], 'Rights to open a VDI, one for each attachment.'),
  collie_provisioned_bytes: family(
    'store',
    'gauge',
    [],
    'Sizes of all working VDIs together, as their users see them.',
  ),
  collie_space_total_bytes: family('store', 'gauge', [], 'Size of the file systems that hold the store.'),
  collie_space_free_bytes: family('store', 'gauge', [], 'Room for writes on them: what is free without the reserve.'),
  collie_space_kept_bytes: family(
    'store',
    'gauge',
    [],
    'Of the free room, what overwriting has freed and what is kept for seconds, for the next write.',
  ),
  collie_space_reserve_bytes: family(
    'store',
    'gauge',
    [],
    'Space that writes leave free, so that deleting always works.',
  ),
  collie_disks: family(
    'store',
    'gauge',
    ['state'],
    'Disks of the store. A failed one is counted until it is unplugged, and what only it held answers errors.',
  ),
  collie_disk_total_bytes: family(
    'store',
    'gauge',
    ['disk'],
    'Size of the file system of a disk, by the id that `collie node disk list --json` gives it; 0 once it has failed.',
  ),
  collie_disk_free_bytes: family('store', 'gauge', ['disk'], 'Room for writes on it, without the reserve.'),
  collie_disk_objects: family('store', 'gauge', ['disk'], 'Objects that lie on it.'),
  collie_objects: family('store', 'gauge', [], 'Objects of 4 MiB and block maps in the store.'),
  collie_loaded_objects: family('store', 'gauge', [], 'Objects with their table in memory and their file open.'),
  collie_corrupt_blocks_total: family(
    'store',
    'counter',
    [],
    'Reads that found a block, a table or a header not to match its checksum.',
  ),
  collie_journal_frames_total: family('store', 'counter', [], 'Frames written to the journal, each a group commit.'),
  collie_journal_written_bytes_total: family('store', 'counter', [], 'Bytes written to the journal.'),
  collie_journal_sync_duration_seconds: family(
    'store',
    'histogram',
    [],
    'Time the disk took to make the journal durable, which each flush waits for.',
  ),
  collie_journal_waiting_transactions: family(
    'store',
    'gauge',
    [],
    'Transactions that are not in the journal yet. More than some: writes wait for a checkpoint.',
  ),
  collie_journal_active_bytes: family('store', 'gauge', [], 'Bytes taken of the segment that is being filled.'),
  collie_journal_segment_bytes: family('store', 'gauge', [], 'Size of one of the two segments of the journal.'),
  collie_placed_written_bytes_total: family(
    'store',
    'counter',
    [],
    'Bytes of large writes, which go straight to object files and not through the journal.',
  ),
  collie_checkpoint_duration_seconds: family(
    'store',
    'histogram',
    [],
    'Time that a checkpoint took to move a segment of the journal into the object files.',
  ),
  collie_checkpoint_written_bytes_total: family(
    'store',
    'counter',
    [],
    'Bytes that checkpoints wrote to object files.',
  ),

  collie_http_request_duration_seconds: family(
    'api',
    'histogram',
    ['method', 'route', 'status'],
    'Time to answer a request of the API, by the pattern of its route and the class of its status.',
  ),
  collie_http_held_seconds: family(
    'api',
    'histogram',
    [],
    'How long requests of the API waited for their turn while disks were busy; only those that had to. See api_share.',
  ),
  collie_volumes: family('api', 'gauge', ['status'], 'Volumes by status, counted at most every ten seconds.'),
  collie_volume_snapshots: family('api', 'gauge', ['status'], 'Volume snapshots by status, counted likewise.'),
  collie_work_units: family('api', 'gauge', ['kind'], 'Units of work that run or wait, counted likewise.'),
  collie_work_running: family('api', 'gauge', [], 'Units of work that run now.'),
  collie_work_done_total: family('api', 'counter', ['kind'], 'Units of work that ended with success.'),
  collie_work_repeated_total: family('api', 'counter', ['kind'], 'Attempts at work that failed and will be repeated.'),
  collie_work_given_up_total: family(
    'api',
    'counter',
    ['kind'],
    'Steps of work that failed for good; the log says why.',
  ),

  collie_event_loop_lag_seconds: family(
    'both',
    'histogram',
    ['thread'],
    'How late timers of a thread are, looked at ten times a second: what requests wait because it is busy.',
  ),
  collie_event_loop_busy_seconds_total: family(
    'both',
    'counter',
    ['thread'],
    'Time that a thread worked and did not wait for input; its rate is how much of a core it takes.',
  ),
  collie_heap_used_bytes: family('both', 'gauge', ['thread'], 'JavaScript heap of a thread in use.'),
  process_cpu_seconds_total: family('both', 'counter', ['roles'], 'User and system time of the process, all threads.'),
  process_resident_memory_bytes: family('both', 'gauge', ['roles'], 'Resident memory of the process.'),
  process_open_fds: family('both', 'gauge', ['roles'], 'Open file descriptors of the process.'),
  process_max_fds: family('both', 'gauge', ['roles'], 'The most file descriptors that it may open.'),
  process_start_time_seconds: family('both', 'gauge', ['roles'], 'When the process started, seconds since 1970.'),
} as const satisfies Record<string, Family>

export type FamilyName = keyof typeof FAMILIES
