import assert from 'node:assert/strict'
import type { Db } from './database.ts'

/**
 * What each project uses: one row per project, and one per project and volume type. A charge is one conditional UPDATE of
 * each in the transaction that writes the rows it counts, so its cost does not depend on how many there are, two requests
 * cannot share the last unit, and a rollback takes rows and counts together.
 */
export interface Usage {
  volumes: number
  snapshots: number
  /** GiB of volumes and snapshots. */
  gigabytes: number
}

export const RESOURCES = ['volumes', 'snapshots', 'gigabytes'] as const

/** Limits of a project; -1 is no limit. */
export type UsageLimits = Usage

/** What the columns hold. A usage never gets larger, whatever the limits are. */
export const USAGE_MAX = 2_147_483_647

/** Whose usage: a project's as a whole, or what it has of one volume type. */
export interface Account {
  projectId: string
  /** Null: of all types. */
  volumeTypeId: string | null
}

/** Adds `charge` unless that would exceed a limit of something it adds to. Answers whether it did. */
export async function charge(trx: Db, account: Account, charge: Usage, limits: UsageLimits): Promise<boolean> {
  const attempt = () => {
    const query = rowOf(trx, account)
    for (const resource of RESOURCES) {
      if (charge[resource] > 0) query.where(resource, '<=', ceiling(limits[resource]) - charge[resource])
    }
    return query.update(sums(trx, charge, '+'))
  }
  if ((await attempt()) === 1) return true
  await trx(tableOf(account))
    .insert({ ...keyOf(account), volumes: 0, snapshots: 0, gigabytes: 0 })
    .onConflict(Object.keys(keyOf(account)))
    .ignore()
  return (await attempt()) === 1
}

/** The most that may be used under a limit. */
export function ceiling(limit: number): number {
  return limit < 0 ? USAGE_MAX : limit
}

/** Takes a charge off again. The database refuses to fall below zero: that would be a miscount. */
export async function refund(trx: Db, account: Account, refund: Usage): Promise<void> {
  const count = await rowOf(trx, account).update(sums(trx, refund, '-'))
  assert(count === 1, `project ${account.projectId} is refunded what it was never charged`)
}

/** No other transaction changes what these projects use until this one has ended. */
export async function lock(trx: Db, projectIds: readonly string[]): Promise<void> {
  await trx('usages').whereIn('project_id', projectIds).orderBy('project_id').forUpdate().select('project_id')
}

export async function usage(db: Db, account: Account): Promise<Usage> {
  const row: Usage | undefined = await rowOf(db, account).first(...RESOURCES)
  return row ?? { volumes: 0, snapshots: 0, gigabytes: 0 }
}

/** As `usage`; no other transaction changes it until this one has ended. */
export async function lockUsage(trx: Db, account: Account): Promise<Usage> {
  const row: Usage | undefined = await rowOf(trx, account)
    .forUpdate()
    .first(...RESOURCES)
  return row ?? { volumes: 0, snapshots: 0, gigabytes: 0 }
}

/** What a project uses of each type, by the id of the type; none for types of which it never had anything. */
export async function usageByType(db: Db, projectId: string): Promise<Map<string, Usage>> {
  const rows: (Usage & { volume_type_id: string })[] = await db('type_usages')
    .where({ project_id: projectId })
    .select('volume_type_id', ...RESOURCES)
  return new Map(rows.map(({ volume_type_id, ...usage }) => [volume_type_id, usage]))
}

function rowOf(db: Db, account: Account) {
  return db(tableOf(account)).where(keyOf(account))
}

function tableOf({ volumeTypeId }: Account): string {
  return volumeTypeId === null ? 'usages' : 'type_usages'
}

function keyOf({ projectId, volumeTypeId }: Account): Record<string, string> {
  return { project_id: projectId, ...(volumeTypeId === null ? {} : { volume_type_id: volumeTypeId }) }
}

function sums(trx: Db, amounts: Usage, sign: '+' | '-') {
  return Object.fromEntries(
    RESOURCES.map((resource) => [resource, trx.raw(`?? ${sign} ?`, [resource, amounts[resource]])]),
  )
}
