import path from 'node:path'
import type { Config } from './config.ts'
import { ControlError } from './control/messages.ts'
import type { Handlers, NodeMethod, Result } from './control/methods.ts'
import { createNbdServer, type NbdServer } from './exports/nbd/server.ts'
import type { NbdTls } from './exports/nbd/session.ts'
import { storeDirectory } from './exports/store-directory.ts'
import { type ClusterMethod, clusterHandlers } from './node-cluster.ts'
import { collectNode } from './node-metrics.ts'
import { openSheep } from './open-sheep.ts'
import type { SheepRequest, SheepResponse } from './protocol/message.ts'
import { formatOid } from './protocol/oid.ts'
import { BusyWatch } from './runtime/busy-watch.ts'
import { formatTime, systemClock } from './runtime/clock.ts'
import type { Log } from './runtime/log.ts'
import { LoopLag } from './runtime/loop-lag.ts'
import { systemNetwork } from './runtime/network.ts'
import { processUsage } from './runtime/process-usage.ts'
import { systemRandom } from './runtime/random.ts'
import { openDiskDirectory, openSystemDisk } from './runtime/system-disk.ts'
import { loadTlsIdentity } from './runtime/tls.ts'
import type { Vdi } from './sheep/entries.ts'
import type { Usage } from './sheep/maintenance/usage.ts'
import type { Damage } from './sheep/maintenance/verify.ts'
import { OperationMeter } from './sheep/operation-meter.ts'
import type { Holder } from './sheep/ops.ts'
import { createSheepServer, type Reply } from './sheep/server.ts'
import type { Sheep } from './sheep/sheep.ts'
import { VdiClient } from './vdi/client.ts'
import { EXPORT_MARK } from './vdi/export-mark.ts'
import { IMPORT_MARK } from './vdi/import-mark.ts'
import { SHEEP_SOCKET } from './vdi/socket-transport.ts'
import type { Transport } from './vdi/transport.ts'

export interface NodeOptions {
  config: Config
  log: Log
  /** Told once when the store cannot go on. */
  onFailed(reason: string): void
  /** The cluster is being shut down. */
  onStopAsked(): void
  /** Disks have become busy, or quiet. */
  onDisksBusy(isBusy: boolean): void
}

export interface RunningNode {
  addresses: Record<string, string>
  handlers: Required<Pick<Handlers, NodeMethod>>
  close(): Promise<void>
}

/** Unix socket in the data directory, beside the sheep's. */
export const NBD_SOCKET = 'nbd.sock'

const MIB = 1024 * 1024
/** Of the descriptors of the process; the rest is for connections, and for the API. */
const OBJECT_FILES_SHARE = 0.75
/** A checkpoint keeps the files of all new objects open that a segment of the journal had, and each takes two pages of it or more. */
const JOURNAL_BYTES_PER_FILE = 8192
const OPEN_FILES_BASE = 8192
/** Far fewer checkpoints would not come of more. */
const OPEN_FILES_MAX = 65536
const CLOSE_GRACE_MS = 5000

/**
 * The root of the store side: one sheep, the door for Sheepdog clients, and the NBD gateway. The only place that knows both
 * sheep and exports; requests of exports reach the sheep by a call instead of a socket.
 */
export async function startNode({
  config,
  log,
  onFailed,
  onStopAsked,
  onDisksBusy,
}: NodeOptions): Promise<RunningNode> {
  const at = (name: string) => path.resolve(config.data_dir, name)
  const disk = openSystemDisk(at('sheep'))
  await disk.makeDirectory('.')
  await disk.syncDirectory('..')
  const first = await openDiskDirectory(at('sheep'))
  await first.close()
  const { maxFds } = await processUsage()
  const segmentBytes = Math.floor(config.journal_size_mib / 2) * MIB
  const needed = OPEN_FILES_BASE + segmentBytes / JOURNAL_BYTES_PER_FILE
  if (maxFds !== null && maxFds < needed) {
    log.warn(
      { maxFds, needed },
      'the limit of open files is low: writes to many new objects may end the store (ulimit -n)',
    )
  }
  const opened = await openSheep(config, {
    disk,
    disks: {
      open: openDiskDirectory,
      homePath: first.path,
      homeDevice: first.device,
      configured: config.disks,
      without: config.without_disks,
    },
    clock: systemClock,
    random: systemRandom,
    log,
    segmentBytes,
    durability: config.durability,
    reserveBytes: config.reserve_mib * MIB,
    lockGraceMs: config.lock_grace_seconds * 1000,
    ...(maxFds !== null && { openFilesMax: Math.min(OPEN_FILES_MAX, maxFds * OBJECT_FILES_SHARE) }),
    scrubBytesPerSecond: config.scrub_rate_mib * MIB,
    onFailed: (error) => onFailed(error.message),
    onStopAsked,
  })
  const { sheep } = opened

  const lag = new LoopLag(systemClock)
  const operations = new OperationMeter(systemClock)
  const run = (request: SheepRequest, holder: Holder, reply: (response: Reply) => void) =>
    opened.run(request, holder, operations.watch(request, reply))
  const disks = new BusyWatch(systemClock, onDisksBusy)
  const transport: Transport = {
    submit: (request, done) => {
      disks.count()
      run(request, null, done as (response: Omit<SheepResponse, 'opcode'>) => void)
    },
    close: () => {},
  }
  const server = createSheepServer({
    network: opened.network,
    clock: systemClock,
    log,
    handle: (request, client, reply) => {
      if (client.peer !== 'unix') disks.count() // by the socket comes the API, for its own work
      run(request, client, reply)
    },
    clientOpened: opened.clientOpened,
    clientClosed: opened.clientClosed,
    epoch: () => sheep.state.epoch,
  })
  const addresses: Record<string, string> = {
    sheep: await server.listen(config.sheep_listen),
    sheep_socket: await server.listen(at(SHEEP_SOCKET)),
  }
  sheep.contact = addresses.sheep ?? config.sheep_listen
  const nbd = config.roles.includes('gateway')
    ? await startGateway(config, log, new VdiClient(transport), addresses)
    : null

  return {
    addresses,
    handlers: {
      ...handlersOf(config, sheep, nbd),
      ...clusterHandlers(opened, onStopAsked),
      metrics: async () => ({
        failure: sheep.failure?.message ?? null,
        samples: await collectNode({ sheep, server, nbd, operations, lag, roles: config.roles }),
      }),
    },
    close: async () => {
      lag.stop()
      disks.stop()
      await nbd?.close()
      await server.close({ graceMs: CLOSE_GRACE_MS })
      await opened.close()
      await disk.close()
    },
  }
}

async function startGateway(
  config: Config,
  log: Log,
  vdis: VdiClient,
  addresses: Record<string, string>,
): Promise<NbdServer> {
  const nbd = createNbdServer({
    network: systemNetwork,
    clock: systemClock,
    log,
    exports: storeDirectory(vdis),
    tls: loadTls(config),
  })
  addresses.nbd = await nbd.listen(config.nbd_listen)
  addresses.nbd_socket = await nbd.listen(path.resolve(config.data_dir, NBD_SOCKET))
  return nbd
}

/** Throws a TypeError that names the settings when their files cannot be used. */
function loadTls({ nbd_tls, nbd_tls_cert, nbd_tls_key, nbd_tls_ca }: Config): NbdTls | null {
  if (nbd_tls === 'off' || nbd_tls_cert === null || nbd_tls_key === null) return null
  try {
    const identity = loadTlsIdentity({ certificate: nbd_tls_cert, key: nbd_tls_key, authorities: nbd_tls_ca })
    return { identity, isRequired: nbd_tls === 'required' }
  } catch (error) {
    throw new TypeError(`nbd_tls_cert, nbd_tls_key, nbd_tls_ca: ${(error as Error).message}`, { cause: error })
  }
}

function handlersOf(
  config: Config,
  sheep: Sheep,
  nbd: NbdServer | null,
): Required<Pick<Handlers, Exclude<NodeMethod, ClusterMethod | 'metrics'>>> {
  return {
    cluster_info: async () => {
      const { totalBytes, freeBytes, provisionedBytes, allocatedBytes, nodes } = await sheep.space()
      const { epoch } = sheep.state
      const isDegraded = nodes.some(({ failedDisks, isAnswering }) => failedDisks > 0 || !isAnswering)
      return {
        status: sheep.failure ? 'failed' : isDegraded ? 'degraded' : 'ok',
        epoch,
        copies: sheep.copies,
        total_bytes: totalBytes,
        free_bytes: freeBytes,
        provisioned_bytes: provisionedBytes,
        allocated_bytes: allocatedBytes,
        nodes: nodes.map((node) => ({
          address: node.address,
          zone: node.zone,
          vnodes: node.vnodes,
          total_bytes: node.totalBytes,
          free_bytes: node.freeBytes,
          failed_disks: node.failedDisks,
          is_answering: node.isAnswering,
        })),
      }
    },
    vdi_list: async () => ({ vdis: describeVdis(sheep, await sheep.usage()) }),
    vdi_objects: async ({ vid, first_index, count }) => ({
      objects: (await sheep.listObjects(vid, first_index, count)).map((object) => ({
        index: object.index,
        oid: formatOid(object.oid),
        vid: object.vid,
        allocated_bytes: object.allocatedBytes,
        inherited_bytes: object.inheritedBytes,
        nodes: [...(object.nodes ?? [sheep.contact])],
      })),
    }),
    stats: async () => {
      const store = await sheep.stats()
      return { store: counters({ ...store }), ...(nbd ? { nbd: counters({ ...nbd.stats }) } : {}) }
    },
    audit: async ({ repair = false }) => {
      await sheep.reclaimed()
      const { sound, problems, problemsTotal, ...counts } = await sheep.audit({ repair })
      return {
        sound,
        checked: {
          objects: counts.objects,
          blocks: counts.blocksChecked,
          vdis: counts.vdis,
          snapshots: counts.snapshots,
          exports: counts.exports,
          deleted_vdis: counts.deleting,
          accounts: counts.accounts,
          ...(counts.busy !== undefined && { parts_in_use: counts.busy }),
        },
        findings: problems.map(({ kind, detail, isRepaired, where }) => ({
          kind,
          detail,
          repaired: isRepaired,
          where: where && describeDamage(where),
        })),
        findings_total: problemsTotal,
      }
    },
    audit_progress: async () => {
      const progress = sheep.auditProgress
      return { is_running: progress !== null, phase: '', done: 0, total: 0, ...progress }
    },
    scrub_status: async () => describeScrub(sheep),
    scrub_start: async () => {
      await sheep.scrubber.start()
      return describeScrub(sheep)
    },
    scrub_pause: async () => {
      await sheep.scrubber.pause()
      return describeScrub(sheep)
    },
    disk_list: async () => ({
      disks: (await sheep.disks.list()).map((disk) => ({
        path: disk.path,
        id: disk.id,
        state: disk.state,
        reason: disk.reason,
        is_first: disk.isFirst,
        total_bytes: disk.totalBytes,
        free_bytes: disk.freeBytes,
        objects: disk.objects,
        moved: sheep.disks.progressOf(disk.path)?.moved ?? 0,
      })),
    }),
    disk_plug: async ({ path }) => {
      await sheep.disks.plug(path)
      return {}
    },
    disk_unplug: async ({ path }) => {
      const { moved } = await sheep.disks.unplug(path)
      return { moved, is_configured: config.disks.includes(path) }
    },
    export_drained: async ({ attachment_id }) => {
      if (sheep.failure) throw new ControlError('Disconnected', sheep.failure.message)
      await nbd?.cutOff(attachment_id)
      return {}
    },
  }
}

/** Who has to do with a VDI now; asked once for all of them. */
function usersOf(sheep: Sheep) {
  const open = sheep.sessions.openVids()
  const isMarked = (vid: number, mark: string) => sheep.state.attributes.of(vid).some(({ key }) => key === mark)
  return ({ vid, name, snapshotAt }: Vdi) => ({
    is_incomplete: isMarked(vid, IMPORT_MARK),
    is_for_export: isMarked(vid, EXPORT_MARK),
    attachments: sheep.state.exports.countOf(vid),
    is_locked: snapshotAt === 0 && sheep.state.locks.has(name),
    is_open: open.has(vid),
  })
}

function describeVdis(sheep: Sheep, usage: ReadonlyMap<number, Usage>): Result<'vdi_list'>['vdis'] {
  const users = usersOf(sheep)
  return [...sheep.state.vdis.values()].flatMap((vdi) => {
    const used = usage.get(vdi.vid)
    if (!used || vdi.deleting) return []
    return {
      name: vdi.name,
      tag: vdi.tag,
      vid: vdi.vid,
      snap_id: vdi.snapId,
      is_snapshot: vdi.snapshotAt > 0,
      size_bytes: vdi.sizeBytes,
      provisioned_bytes: used.provisionedBytes,
      allocated_bytes: used.allocatedBytes,
      unique_bytes: used.uniqueBytes,
      shared_bytes: used.sharedBytes,
      is_exact: used.isExact,
      parent_vid: vdi.parentVid,
      created_at: formatTime(vdi.createdAt),
      snapshot_at: vdi.snapshotAt > 0 ? formatTime(vdi.snapshotAt) : null,
      copies: vdi.copies,
      ...users(vdi),
    }
  })
}

const describeDamage = ({ vdi, snapshot, offsetBytes, lengthBytes }: Damage) => ({
  vdi,
  snapshot,
  offset_bytes: offsetBytes,
  length_bytes: lengthBytes,
})

function describeScrub(sheep: Sheep): Result<'scrub_status'> {
  const { status } = sheep.scrubber
  return {
    state: status.state,
    bytes_per_second: status.bytesPerSecond,
    round: status.round,
    objects_done: status.objectsDone,
    objects_total: status.objectsTotal,
    bytes_read: status.bytesRead,
    findings: status.findings,
    repaired: status.repaired,
    damage: status.damage.map(describeDamage),
    last_round_at: status.lastRoundAt > 0 ? formatTime(status.lastRoundAt) : null,
    last_round_findings: status.lastRoundFindings,
  }
}

/** Counters under the names that `--json` prints: words joined by underscores. */
function counters(values: Record<string, number>): Record<string, number> {
  const named = Object.entries(values).map(([name, value]) => [
    name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`),
    value,
  ])
  return Object.fromEntries(named)
}
