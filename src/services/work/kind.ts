import type { Db } from '../../db/database.ts'
import type { ServiceError } from '../../errors.ts'

export type WorkKindName =
  | 'volume-create'
  | 'volume-delete'
  | 'volume-extend'
  | 'volume-retype'
  | 'volume-revert'
  | 'volume-migrate'
  | 'volume-swap'
  | 'volume-reencrypt'
  | 'snapshot-create'
  | 'snapshot-delete'
  | 'attachment-connect'
  | 'attachment-disconnect'
  | 'backup-create'
  | 'backup-delete'
  | 'backup-restore'
  | 'volume-reimage'
  | 'volume-upload'
  | 'volume-manage'
  | 'snapshot-manage'
  | 'group-create'
  | 'group-delete'
  | 'group-snapshot-create'
  | 'group-snapshot-delete'

/** What a unit is about; JSON in its row. */
export type WorkParams = Readonly<Record<string, string | number | boolean>>

export interface WorkUnit {
  id: string
  kind: WorkKindName
  resourceId: string
  lane: string
  params: WorkParams
  requestId: string | null
  step: string
  attempt: number
  lastError: string | null
  /** Who may write its result: see `Claim` in src/db/work.ts. */
  owner: string
  fence: number
  /** Whether it may begin at once: no other process runs a unit of its lane. */
  hasLane: boolean
}

/**
 * How one kind of work is done, step by step.
 *
 * 1. `attempt` does the step that the unit stands at. It may be called again after a crash or a timeout at any point,
 *    so it only does what may be repeated, and writes nothing to the database itself.
 * 2. What it answers is committed in the transaction that moves the unit on or removes it. So a result is written
 *    exactly once, and never by a unit that another one has replaced or another process has taken over. The commit may run and be
 *    rolled back, so it changes nothing but the database; it locks a volume before what hangs on it.
 * 3. `giveUp` is asked when the last attempt of a step failed. It leaves no status that only work could end.
 */
export interface WorkKind {
  attempt(unit: WorkUnit): Promise<Outcome>
  giveUp(unit: WorkUnit, error: ServiceError): Outcome
  /** The step at which a unit goes on that a dead process left behind; its own when absent. */
  resumeAt?(step: string): string
  /** Whether a unit that a dead process left waiting at that step still waits for its time; otherwise it is due at once. */
  waitsAt?(step: string): boolean
}

export interface Outcome {
  commit(trx: Db): Promise<void>
  /** In place of `next` and `afterMs`, where only the transaction can tell; called after `commit`, under the same rules. */
  decide?(trx: Db): Promise<Following>
  /** The step that follows; the unit is done without one. */
  next?: string
  /** How long to wait with the step that follows, without keeping a slot or the lane. */
  afterMs?: number
}

export interface Following {
  next: string
  afterMs?: number
}
