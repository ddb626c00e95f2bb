import assert from 'node:assert/strict'
import type { Db } from './database.ts'
import { ceiling } from './quotas.ts'

/** How many groups each project has: a row per project, charged and refunded as that of volumes; see quotas.ts. */

/** Adds a group unless that would exceed the limit (-1 is none). Answers whether it did. */
export async function charge(trx: Db, projectId: string, limit: number): Promise<boolean> {
  const attempt = () =>
    trx('group_usages')
      .where({ project_id: projectId })
      .where('groups', '<=', ceiling(limit) - 1)
      .update({ groups: trx.raw('?? + 1', ['groups']) })
  if ((await attempt()) === 1) return true
  await trx('group_usages').insert({ project_id: projectId, groups: 0 }).onConflict('project_id').ignore()
  return (await attempt()) === 1
}

export async function refund(trx: Db, projectId: string): Promise<void> {
  const count = await trx('group_usages')
    .where({ project_id: projectId })
    .update({ groups: trx.raw('?? - 1', ['groups']) })
  assert(count === 1, `project ${projectId} is refunded a group that it was never charged`)
}

export async function usage(db: Db, projectId: string): Promise<{ groups: number }> {
  const row: { groups: number } | undefined = await db('group_usages').where({ project_id: projectId }).first('groups')
  return row ?? { groups: 0 }
}
