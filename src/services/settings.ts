import { DEFAULT_WEIGHTS, type Weights } from '../scheduler/weighers.ts'
import { DEFAULT_QUOTA, type QuotaSettings } from './quota.ts'
import { DEFAULT_WORK, type WorkSettings } from './work/retry.ts'

export interface ServiceSettings {
  /** Name of this host: the first part of a volume's `host`. */
  hostName: string
  /** Of volumes that ask for none. */
  availabilityZone: string
  /** Name of the type of volumes that ask for none; made at start when absent. */
  defaultVolumeType: string
  /** Name of the group type that `group_types/default` shows; null: there is none. */
  defaultGroupType: string | null
  quota: QuotaSettings
  work: WorkSettings
  /** What the backend said about its pools is asked again when older than this. */
  poolsMaxAgeMs: number
  scheduler: SchedulerSettings
  /** How long `stop` waits for work that runs. */
  stopGraceMs: number
  /**
   * With Nova in the cloud: an attachment that connects an instance is deleted only by a service (X-Service-Token) or an
   * administrator, because a volume taken from under a running guest ends up at another one (OSSA-2023-003).
   */
  protectInstances: boolean
  /** How long the compute service may take to move a volume in use, before that is given up. */
  swapTimeoutMs: number
  /** How long a message is kept at least. */
  messageTtlMs: number
}

export interface SchedulerSettings {
  weights: Weights
  /** Pools that are tried for one volume. */
  poolsMax: number
  /** Attempts at one pool before another that fits is tried. */
  attemptsPerPool: number
}

export const DEFAULT_SCHEDULER: SchedulerSettings = { weights: DEFAULT_WEIGHTS, poolsMax: 3, attemptsPerPool: 2 }

export const DEFAULT_SETTINGS: Omit<ServiceSettings, 'hostName'> = {
  availabilityZone: 'nova',
  defaultVolumeType: '__DEFAULT__',
  defaultGroupType: null,
  quota: DEFAULT_QUOTA,
  work: DEFAULT_WORK,
  poolsMaxAgeMs: 10_000,
  scheduler: DEFAULT_SCHEDULER,
  stopGraceMs: 10_000,
  protectInstances: false,
  swapTimeoutMs: 86_400_000,
  messageTtlMs: 30 * 86_400_000, // as upstream's message_ttl
}
