import assert from 'node:assert/strict'
import type { Db } from './database.ts'
import { readOneMoment } from './dialect.ts'

/**
 * What each project uses, one row per project. A charge is one conditional UPDATE in the transaction that writes the
 * rows it counts, so its cost does not depend on how many there are, two requests cannot share the last unit, and a
 * rollback takes rows and counts together.
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

/** Adds `charge` unless that would exceed a limit of something it adds to. Answers whether it did. */
export async function charge(trx: Db, projectId: string, charge: Usage, limits: UsageLimits): Promise<boolean> {
  const attempt = () => {
    const query = trx('usages').where({ project_id: projectId })
    for (const resource of RESOURCES) {
      if (charge[resource] > 0 && limits[resource] >= 0) {
        query.where(resource, '<=', limits[resource] - charge[resource])
      }
    }
    return query.update(sums(trx, charge, '+'))
  }
  if ((await attempt()) === 1) return true
  const inserted = { project_id: projectId, volumes: 0, snapshots: 0, gigabytes: 0 }
  await trx('usages').insert(inserted).onConflict('project_id').ignore()
  return (await attempt()) === 1
}

/** Takes a charge off again. The database refuses to fall below zero: that would be a miscount. */
export async function refund(trx: Db, projectId: string, refund: Usage): Promise<void> {
  const count = await trx('usages')
    .where({ project_id: projectId })
    .update(sums(trx, refund, '-'))
  assert(count === 1, `project ${projectId} is refunded what it was never charged`)
}

export async function usage(db: Db, projectId: string): Promise<Usage> {
  const row: Usage | undefined = await db('usages')
    .where({ project_id: projectId })
    .first(...RESOURCES)
  return row ?? { volumes: 0, snapshots: 0, gigabytes: 0 }
}

/** As `usage`; no other transaction changes it until this one has ended. */
export async function lockUsage(trx: Db, projectId: string): Promise<Usage> {
  const row: Usage | undefined = await trx('usages')
    .where({ project_id: projectId })
    .forUpdate()
    .first(...RESOURCES)
  return row ?? { volumes: 0, snapshots: 0, gigabytes: 0 }
}

export interface Miscount {
  projectId: string
  kept: Usage
  counted: Usage
}

/** Where what is kept is not what the rows add up to; both are read at one moment. */
export async function miscounts(db: Db): Promise<Miscount[]> {
  const nothing = (): Usage => ({ volumes: 0, snapshots: 0, gigabytes: 0 })
  const [kept, counted] = [new Map<string, Usage>(), new Map<string, Usage>()]
  await db.transaction(async (trx) => {
    await readOneMoment(trx)
    for (const { project_id, ...row } of await trx('usages')) kept.set(project_id, { ...nothing(), ...pick(row) })
    for (const resource of ['volumes', 'snapshots'] as const) {
      const size = resource === 'volumes' ? trx.raw('coalesce(pending_size_gib, size_gib)') : 'size_gib'
      const rows: { project_id: string; count: number | string; size: number | string }[] = await trx(resource)
        .select('project_id')
        .count({ count: '*' })
        .sum({ size })
        .groupBy('project_id')
      for (const row of rows) {
        const usage = counted.get(row.project_id) ?? nothing()
        usage[resource] = Number(row.count)
        usage.gigabytes += Number(row.size)
        counted.set(row.project_id, usage)
      }
    }
  })
  return [...new Set([...kept.keys(), ...counted.keys()])]
    .map((projectId) => ({
      projectId,
      kept: kept.get(projectId) ?? nothing(),
      counted: counted.get(projectId) ?? nothing(),
    }))
    .filter((usage) => RESOURCES.some((resource) => usage.kept[resource] !== usage.counted[resource]))
}

/** Writes a count that was found wrong, unless it has changed since. Answers whether it did. */
export async function correct(db: Db, { projectId, kept, counted }: Miscount): Promise<boolean> {
  await db('usages')
    .insert({ project_id: projectId, ...kept })
    .onConflict('project_id')
    .ignore()
  return (
    (await db('usages')
      .where({ project_id: projectId, ...kept })
      .update({ ...counted })) === 1
  )
}

function pick(row: Usage): Usage {
  return { volumes: row.volumes, snapshots: row.snapshots, gigabytes: row.gigabytes }
}

function sums(trx: Db, amounts: Usage, sign: '+' | '-') {
  return Object.fromEntries(
    RESOURCES.map((resource) => [resource, trx.raw(`?? ${sign} ?`, [resource, amounts[resource]])]),
  )
}
