import { z } from 'zod'

/**
 * What the service side, the store side and the command line may ask of each other. One row per method: the shape of
 * its parameters and of its result, both checked where they arrive. Names of fields are those that `--json` prints.
 */
const method = <P extends z.ZodType, R extends z.ZodType>(params: P, result: R) => ({ params, result })

const nothing = z.strictObject({})

const count = z.number().nonnegative()

/** Where something listens, by what it speaks: `api`, `sheep`, `nbd`, and the unix sockets of the same. */
const addresses = z.record(z.string(), z.string())

const info = z.object({
  pid: z.int(),
  version: z.string(),
  data_dir: z.string(),
  roles: z.array(z.string()),
  addresses,
  /** Of its NBD gateway; absent where there is none. */
  nbd_tls: z.enum(['off', 'optional', 'required']).optional(),
})

const clusterInfo = z.object({
  status: z.string(),
  epoch: z.int(),
  copies: z.int(),
  /** What VDIs with so many copies may hold, each byte with all of them: at all, and yet, until the first node is full. */
  total_bytes: count,
  free_bytes: count,
  /** What the working VDIs promise, in such bytes: those of a VDI with more copies count for more. */
  provisioned_bytes: count,
  /** Blocks with data, each counted once, however many copies there are. */
  allocated_bytes: count,
  nodes: z.array(
    z.object({
      address: z.string(),
      zone: z.int(),
      vnodes: z.int(),
      /** Of its disks. */
      total_bytes: count,
      free_bytes: count,
      failed_disks: count,
      /** False when these are what it said before. */
      is_answering: z.boolean(),
    }),
  ),
})

/** How copies are made anew, on all nodes together. */
const recovery = z.object({
  is_paused: z.boolean(),
  /** What each node may copy; null where each goes by its setting. */
  limit_bytes_per_second: count.nullable(),
  /** Families of volumes that are being looked at, their objects, and those of these that are where they belong. */
  families: z.int(),
  objects: count,
  objects_done: count,
  /** What the objects that were looked at lack yet, and the others perhaps. */
  bytes_left: count,
  /** Since the nodes were started. */
  bytes_copied: count,
  bytes_per_second: count,
  /** Null while nothing is under way, and while it cannot be said. */
  seconds_left: count.nullable(),
})

const clusterStatus = z.object({
  /** Null for a node that is alone. */
  cluster: z.string().nullable(),
  epoch: z.int(),
  /** Whether the node that was asked serves clients: it is in the view, and a majority of the voters answers it. */
  is_acting: z.boolean(),
  /** Families of volumes whose copies are not all where they belong yet. */
  families_to_bring_home: z.int(),
  nodes: z.array(
    z.object({
      node: z.string(),
      address: z.string(),
      zone: z.int(),
      vnodes: z.int(),
      is_voter: z.boolean(),
      is_self: z.boolean(),
      /** It is to hold nothing any more. */
      is_draining: z.boolean(),
      /** Whether it may go down now, and why not. */
      may_go_down: z.boolean(),
      reason: z.string(),
    }),
  ),
  /** Ids of nodes that vote and are away. */
  voters_away: z.array(z.string()),
  /** Nodes that are not there, and keep their places until what they hold is made anew elsewhere. */
  away: z.array(z.object({ node: z.string(), address: z.string(), seconds_left: z.int().nullable() })),
  /** Ids of nodes that an operator has said are gone for good. */
  removed: z.array(z.string()),
  recovery,
})

const vdi = z.object({
  name: z.string(),
  /** Empty for the working VDI of a name. */
  tag: z.string(),
  vid: z.int(),
  snap_id: z.int(),
  is_snapshot: z.boolean(),
  size_bytes: count,
  provisioned_bytes: count,
  /** What the VDI sees of data. */
  allocated_bytes: count,
  /** The part of it that nobody else sees: what comes back when it is deleted. */
  unique_bytes: count,
  /** The part of it that others see too. */
  shared_bytes: count,
  /** False while `unique_bytes` is still being counted: then it is the most that it can be. */
  is_exact: z.boolean(),
  parent_vid: z.int(),
  created_at: z.string(),
  /** When it became a snapshot; null for a working VDI. */
  snapshot_at: z.string().nullable(),
  copies: z.int(),
  /** An import fills it, or did when it was killed. */
  is_incomplete: z.boolean(),
  /** A snapshot that an export has taken for itself, or had when it was killed. */
  is_for_export: z.boolean(),
  /** Rights to open it that were given out. */
  attachments: z.int(),
  /** QEMU or tgt hold the lock on its name. */
  is_locked: z.boolean(),
  /** Somebody has it open now. */
  is_open: z.boolean(),
})

const vdiObject = z.object({
  index: z.int(),
  oid: z.string(),
  /** Whose object it is: an ancestor's for what was not written since the snapshot. */
  vid: z.int(),
  /** Bytes that the object itself holds, and those that it takes from an ancestor's. */
  allocated_bytes: count,
  inherited_bytes: count,
  /** Addresses of the nodes that should have a copy. */
  nodes: z.array(z.string()),
})

/** A range of a VDI or snapshot (`snapshot` is its tag, or `#` and its number) that cannot be read. */
const damage = z.object({ vdi: z.string(), snapshot: z.string(), offset_bytes: count, length_bytes: count })

const audit = z.object({
  /** Nothing found that breaks a promise of the store, or everything that was is repaired. */
  sound: z.boolean(),
  /** What was looked at: objects, blocks … by name. */
  checked: z.record(z.string(), count),
  /** The first hundred. */
  findings: z.array(
    z.object({ kind: z.string(), detail: z.string(), repaired: z.boolean(), where: damage.nullable() }),
  ),
  findings_total: count,
})

const auditProgress = z.object({
  is_running: z.boolean(),
  /** `references` counts families of VDIs, `blocks` counts objects. */
  phase: z.string(),
  done: count,
  total: count,
})

const scrub = z.object({
  /** `running`, `waiting` for the next round, `paused`, or `off`. */
  state: z.string(),
  bytes_per_second: count,
  round: count,
  objects_done: count,
  objects_total: count,
  bytes_read: count,
  /** Damaged blocks and objects of this round that could not be put right, and those that were, from other copies. */
  findings: count,
  repaired: count,
  damage: z.array(damage),
  /** When the last whole round ended; null when there was none. */
  last_round_at: z.string().nullable(),
  last_round_findings: count,
})

/** One time series: its value, or the buckets of a histogram. */
const sample = z.object({
  name: z.string(),
  labels: z.record(z.string(), z.string()),
  value: z.union([
    z.number(),
    z.object({ bounds: z.array(z.number()).readonly(), counts: z.array(count).readonly(), sum: z.number() }),
  ]),
})

const disk = z.object({
  path: z.string(),
  id: z.string(),
  state: z.enum(['ok', 'leaving', 'failed']),
  /** Why it failed; empty for others. */
  reason: z.string(),
  /** Holds the journal and the maps. */
  is_first: z.boolean(),
  total_bytes: count,
  free_bytes: count,
  objects: count,
  /** Objects that have left it, while it is being unplugged. */
  moved: count,
})

const workUnit = z.object({
  kind: z.string(),
  step: z.string(),
  attempt: z.int(),
  last_error: z.string().nullable(),
  /** When it is tried next, or was begun; milliseconds since 1970. */
  due_at_ms: z.number(),
  owner: z.string(),
})

const member = z.object({ id: z.string(), name: z.string().nullable(), status: z.string() })

const explanation = z.object({
  kind: z.enum(['volume', 'snapshot', 'attachment', 'group', 'group snapshot']),
  id: z.string(),
  name: z.string().nullable(),
  project_id: z.string(),
  size_gib: z.int().nullable(),
  /** Null for a group and a snapshot of one. */
  volume_id: z.string().nullable(),
  host: z.string().nullable(),
  status: z.string(),
  /** Why the last work on it failed. */
  reason: z.string().nullable(),
  created_at: z.string(),
  updated_at: z.string().nullable(),
  work: workUnit.nullable(),
  /** Work on the same volume, which goes before or after. */
  work_beside: z.array(workUnit.extend({ resource_id: z.string() })),
  attachments: z.array(
    z.object({
      id: z.string(),
      status: z.string(),
      instance_id: z.string().nullable(),
      host: z.string().nullable(),
      reason: z.string().nullable(),
    }),
  ),
  snapshots: z.array(member),
  /** Of a group. */
  volumes: z.array(member),
  /** Newest first. */
  messages: z.array(
    z.object({
      id: z.string(),
      created_at: z.string(),
      level: z.string(),
      event_id: z.string(),
      text: z.string(),
      request_id: z.string().nullable(),
    }),
  ),
})

const volume = z.object({
  id: z.string(),
  name: z.string().nullable(),
  project_id: z.string(),
  status: z.string(),
  reason: z.string().nullable(),
  size_gib: z.int(),
  volume_type: z.string(),
  host: z.string().nullable(),
  created_at: z.string(),
  updated_at: z.string().nullable(),
})

const diskPath = z.strictObject({ path: z.string().min(1) })

export const METHODS = {
  ping: method(nothing, nothing),
  info: method(nothing, info),
  cluster_info: method(nothing, clusterInfo),
  cluster_status: method(nothing, clusterStatus),
  recovery_status: method(nothing, recovery),
  /** From now on, on all nodes; what is absent stays as it is. */
  recovery_set: method(
    z.strictObject({
      is_paused: z.boolean().optional(),
      limit_bytes_per_second: z.int().positive().nullable().optional(),
    }),
    recovery,
  ),
  /** `node` is its id or its address; answered when it holds for what is written from then on. With `undo` it gets data again. */
  node_drain: method(z.strictObject({ node: z.string().min(1), undo: z.boolean().optional() }), nothing),
  /** The node is gone for good. Rejects with VdiInUse and what may be lost, unless `force` gives that up. */
  node_remove: method(z.strictObject({ node: z.string().min(1), force: z.boolean().optional() }), nothing),
  /**
   * Of a store of one node that is to be the first of several: how many VDIs and snapshots come along, how many bytes have to be written for
   * that, and what is in the way, each with what to do. Rejects with Unsupported when it is one of several.
   */
  cluster_founding: method(
    nothing,
    z.object({ vdis: count, snapshots: count, bytes_to_write: count, obstacles: z.array(z.string()) }),
  ),
  /** All nodes of the cluster are asked to stop, this one last; answered before that. The addresses of those that did not answer. */
  cluster_shutdown: method(nothing, z.object({ unreached: z.array(z.string()) })),
  vdi_list: method(nothing, z.object({ vdis: z.array(vdi) })),
  /** Objects of a VDI in the order of their indexes, from one on; fewer than `count` are the last. Rejects with NoVdi. */
  vdi_objects: method(
    z.strictObject({ vid: z.int(), first_index: count, count: z.int().positive().max(4096) }),
    z.object({ objects: z.array(vdiObject) }),
  ),
  /** Counters by part: `{ store: { objects: 3 }, nbd: { reads: 7 } }`. */
  stats: method(nothing, z.record(z.string(), z.record(z.string(), z.number()))),
  /** What Prometheus is told, and why the store has failed if it has. */
  metrics: method(nothing, z.object({ failure: z.string().nullable(), samples: z.array(sample) })),
  /** With `repair` it also mends what can be. */
  audit: method(z.strictObject({ repair: z.boolean().optional() }), audit),
  audit_progress: method(nothing, auditProgress),
  scrub_status: method(nothing, scrub),
  /** Goes on after a pause; between rounds it starts the next one. */
  scrub_start: method(nothing, scrub),
  scrub_pause: method(nothing, scrub),
  disk_list: method(nothing, z.object({ disks: z.array(disk) })),
  disk_plug: method(diskPath, nothing),
  /** Answered when nothing of the store is on the disk any more. `is_configured`: a start would plug it in again. */
  disk_unplug: method(diskPath, z.object({ moved: count, is_configured: z.boolean() })),
  /** Resolves when nothing that was sent under the attachment's right can change its volume any more. */
  export_drained: method(z.strictObject({ attachment_id: z.string() }), nothing),
  /** Answered by the service side: why a volume, snapshot or attachment is as it is; null when there is none of that id. */
  explain: method(z.strictObject({ id: z.string() }), z.object({ explanation: explanation.nullable() })),
  /** Answered by the service side: volumes of all projects, oldest first. Fewer than `limit` are the last. */
  volume_list: method(
    z.strictObject({
      /** The id of the last volume that the caller has. */
      after: z.string().nullable(),
      limit: z.int().positive().max(1000),
      status: z.string().nullable(),
      project_id: z.string().nullable(),
    }),
    z.object({ volumes: z.array(volume) }),
  ),
  /** Ends the other side with grace; answered before it has ended. */
  stop: method(nothing, nothing),
} as const satisfies Record<string, { params: z.ZodType; result: z.ZodType }>

/** What happens without being asked for; nobody has to listen. */
export const EVENTS = {
  /** The store cannot go on (its disk failed); its process should end. */
  failed: z.object({ reason: z.string() }),
  /** The cluster is being shut down: the process should end with grace. */
  stop_asked: nothing,
  /** Disks have become busy, or quiet: see BusyWatch. */
  disks_busy: z.object({ busy: z.boolean() }),
} as const satisfies Record<string, z.ZodType>

type Methods = typeof METHODS
export type MethodName = keyof Methods
export type Params<M extends MethodName> = z.output<Methods[M]['params']>
export type Result<M extends MethodName> = z.output<Methods[M]['result']>

export type EventName = keyof typeof EVENTS
export type EventData<E extends EventName> = z.output<(typeof EVENTS)[E]>

/** Answered by a process for itself, or by its service side. */
const OF_THE_PROCESS = ['ping', 'info', 'stop', 'explain', 'volume_list'] as const satisfies readonly MethodName[]
export type NodeMethod = Exclude<MethodName, (typeof OF_THE_PROCESS)[number]>

/** Answered by the store, whose process passes them on to its thread. */
export const NODE_METHODS = (Object.keys(METHODS) as MethodName[]).filter(
  (name): name is NodeMethod => !(OF_THE_PROCESS as readonly string[]).includes(name),
)

/** The methods that one side answers. */
export type Handlers = { readonly [M in MethodName]?: (params: Params<M>) => Promise<Result<M>> }
