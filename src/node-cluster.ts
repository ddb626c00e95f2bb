import { ControlError } from './control/messages.ts'
import type { Handlers, Result } from './control/methods.ts'
import type { OpenedSheep } from './open-sheep.ts'
import type { ClusteredSheep } from './sheep/clustered/clustered-sheep.ts'
import { mayGoDown } from './sheep/membership/down.ts'

export type ClusterMethod =
  | 'cluster_status'
  | 'recovery_status'
  | 'recovery_set'
  | 'node_drain'
  | 'node_remove'
  | 'cluster_founding'
  | 'cluster_shutdown'

/** What a node answers that is about the cluster it is in. `stop` ends this process with grace. */
export function clusterHandlers(opened: OpenedSheep, stop: () => void): Required<Pick<Handlers, ClusterMethod>> {
  return {
    cluster_status: () => statusOf(opened),
    recovery_status: () => recoveryOf(opened),
    recovery_set: async ({ is_paused, limit_bytes_per_second }) => {
      await clusterOf(opened).store.admin.setRecovery({
        ...(is_paused !== undefined && { isPaused: is_paused }),
        ...(limit_bytes_per_second !== undefined && { bytesPerSecond: limit_bytes_per_second }),
      })
      return recoveryOf(opened)
    },
    node_drain: async ({ node, undo = false }) => {
      await clusterOf(opened).store.admin.drain(node, !undo)
      return {}
    },
    cluster_founding: async () => {
      const { sheep } = opened
      const { obstacles, bytes } = await sheep.surveyForFounding()
      const { workingCount, snapshotCount } = sheep.state.vdis
      return { vdis: workingCount, snapshots: snapshotCount, bytes_to_write: bytes, obstacles: [...obstacles] }
    },
    cluster_shutdown: async () => {
      const unreached = (await opened.clustered?.store.stopOthers()) ?? []
      stop()
      return { unreached: [...unreached] }
    },
    node_remove: async ({ node, force = false }) => {
      await clusterOf(opened).store.admin.remove(node, { isForced: force })
      return {}
    },
  }
}

function clusterOf({ clustered }: OpenedSheep): ClusteredSheep {
  if (!clustered) throw new ControlError('Unsupported', 'this node is alone')
  return clustered
}

async function statusOf(opened: OpenedSheep): Promise<Result<'cluster_status'>> {
  const { sheep, clustered } = opened
  const { state } = sheep
  const { view } = state
  const status = clustered?.store.status()
  const isMember = (node: string) => state.members.some((member) => member.node === node)
  return {
    cluster: state.founded?.cluster ?? null,
    epoch: state.epoch,
    is_acting: status?.isActing ?? sheep.failure === null,
    families_to_bring_home: status?.unclean ?? 0,
    nodes: state.members.map((member) => {
      const { isSafe, reason } = mayGoDown(view, member.node, withoutNode(clustered, member.node))
      return {
        node: member.node,
        address: member.address,
        zone: member.zone,
        vnodes: member.vnodes,
        is_voter: view.voters.includes(member.node),
        is_self: status?.self.node === member.node || clustered === null,
        is_draining: view.draining?.includes(member.node) ?? false,
        may_go_down: isSafe,
        reason,
      }
    }),
    voters_away: view.voters.filter((voter) => !isMember(voter)),
    away: awayOf(clustered).map(({ node, address, secondsLeft }) => ({ node, address, seconds_left: secondsLeft })),
    removed: [...(view.removed ?? [])],
    recovery: await recoveryOf(opened),
  }
}

async function recoveryOf({ sheep, clustered }: OpenedSheep): Promise<Result<'recovery_status'>> {
  const progress = await clustered?.store.recoveryProgress()
  const { isPaused, bytesPerSecond } = sheep.state.recovery
  return {
    is_paused: isPaused,
    limit_bytes_per_second: bytesPerSecond,
    families: progress?.families ?? 0,
    objects: progress?.objects ?? 0,
    objects_done: progress?.objectsDone ?? 0,
    bytes_left: progress?.bytesLeft ?? 0,
    bytes_copied: progress?.bytesCopied ?? 0,
    bytes_per_second: progress?.bytesPerSecond ?? 0,
    seconds_left: progress?.secondsLeft ?? null,
  }
}

const withoutNode = (clustered: ClusteredSheep | null, node: string) =>
  clustered?.store.admin.without(node) ?? { lost: 0, waiting: 0 }

const awayOf = (clustered: ClusteredSheep | null) => clustered?.store.admin.away ?? []
