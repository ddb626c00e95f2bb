import * as backupUsages from '../db/backup-usages.ts'
import type { Db } from '../db/database.ts'
import * as groupUsages from '../db/group-usages.ts'
import * as quotaLimits from '../db/quota-limits.ts'
import * as quotas from '../db/quotas.ts'
import * as volumeTypes from '../db/volume-types.ts'
import { ServiceError } from '../errors.ts'
import type { QuotaUsage } from './model.ts'
import type { Parts } from './parts.ts'
import { limitAmong, limitOf, QUOTAS, type QuotaName, type QuotaSettings, quotaName } from './quota.ts'
import type { QuotaService } from './services.ts'

/** A quota and where it is kept. */
interface Quota {
  resource: string
  /** Null for all types together. */
  typeId: string | null
}

/** What a project uses, with and without its types. */
interface Usages {
  whole: quotas.Usage
  byType: ReadonlyMap<string, quotas.Usage>
}

export function createQuotaService({ db, settings }: Parts): QuotaService {
  const limitsAmong = (known: ReadonlyMap<string, Quota>, rows: readonly quotaLimits.QuotaLimitRow[]) =>
    mapValues(known, (quota) => effectiveLimit(rows, quota, settings.quota))

  async function limitsOfProject(trx: Db, projectId: string): Promise<Record<string, number>> {
    return limitsAmong(await quotasOf(trx), await quotaLimits.ofProjectAndType(trx, projectId, null))
  }

  /** A class has its own limits, and for the rest those of the class `default`. */
  async function limitsOfClass(trx: Db, name: string): Promise<Record<string, number>> {
    const own = await quotaLimits.ofClass(trx, name)
    const others = name === quotaLimits.DEFAULT_CLASS ? [] : await quotaLimits.ofClass(trx, quotaLimits.DEFAULT_CLASS)
    return limitsAmong(await quotasOf(trx), [...own, ...others])
  }

  return {
    get: async (context, projectId) => {
      context.authorize('volume_extension:quotas:show', { projectId })
      return limitsOfProject(db, projectId)
    },
    usage: async (context, projectId) => {
      context.authorize('volume_extension:quotas:show', { projectId })
      const [known, rows, used] = [
        await quotasOf(db),
        await quotaLimits.ofProjectAndType(db, projectId, null),
        await usagesOf(db, projectId),
      ]
      return mapValues(known, (quota) => ({
        limit: effectiveLimit(rows, quota, settings.quota),
        used: usedOf(used, quota),
      }))
    },
    defaults: async (context, projectId) => {
      context.authorize('volume_extension:quotas:show', { projectId })
      return limitsOfClass(db, quotaLimits.DEFAULT_CLASS)
    },
    update: async (context, projectId, limits) => {
      context.authorize('volume_extension:quotas:update', { projectId })
      return db.transaction(async (trx) => {
        const known = quotasFor(await volumeTypes.holdNames(trx))
        const changes = changesOf(limits, known, 'quota set')
        const rows = await quotaLimits.ofProjectAndType(trx, projectId, null)
        const own = rows.filter(({ scope }) => scope === 'project')
        const used = await usagesOf(trx, projectId)
        for (const { name, quota, limit } of changes) checkNotBelowUsage(name, limit, own, quota, used)
        await quotaLimits.set(trx, changes.map(toRow('project', projectId)))
        return limitsOfProject(trx, projectId)
      })
    },
    reset: async (context, projectId) => {
      context.authorize('volume_extension:quotas:delete', { projectId })
      await db.transaction((trx) => quotaLimits.removeOfProject(trx, projectId))
    },
    getClass: async (context, name) => {
      context.authorize('volume_extension:quota_classes:get', { projectId: context.projectId })
      return limitsOfClass(db, name)
    },
    updateClass: async (context, name, limits) => {
      context.authorize('volume_extension:quota_classes:update', { projectId: context.projectId })
      return db.transaction(async (trx) => {
        const changes = changesOf(limits, quotasFor(await volumeTypes.holdNames(trx)), 'quota class set')
        await quotaLimits.set(trx, changes.map(toRow('class', name)))
        return limitsOfClass(trx, name)
      })
    },
    limits: async (context, asked) => {
      const projectId = context.isAdmin ? asked : context.projectId
      const [rows, used] = [await quotaLimits.ofProject(db, projectId), await usagesOf(db, projectId)]
      const answer: Partial<Record<QuotaName, QuotaUsage>> = {}
      for (const name of Object.keys(QUOTAS) as QuotaName[]) {
        answer[name] = {
          limit: limitOf(rows, name, settings.quota),
          used: usedOf(used, { resource: name, typeId: null }),
        }
      }
      return answer as Record<QuotaName, QuotaUsage>
    },
  }
}

/** Every quota there is, by name: those of a project, and three for each type. */
async function quotasOf(db: Db): Promise<Map<string, Quota>> {
  return quotasFor(await volumeTypes.names(db))
}

function quotasFor(types: readonly { id: string; name: string }[]): Map<string, Quota> {
  const known = new Map<string, Quota>(Object.keys(QUOTAS).map((resource) => [resource, { resource, typeId: null }]))
  for (const { id, name } of types) {
    for (const resource of quotas.RESOURCES) known.set(quotaName(resource, name), { resource, typeId: id })
  }
  return known
}

function effectiveLimit(
  rows: readonly quotaLimits.QuotaLimitRow[],
  { resource, typeId }: Quota,
  defaults: QuotaSettings,
): number {
  return typeId === null ? limitOf(rows, resource as QuotaName, defaults) : (limitAmong(rows, resource, typeId) ?? -1)
}

async function usagesOf(db: Db, projectId: string): Promise<Usages> {
  const ofVolumes = await quotas.usage(db, { projectId, volumeTypeId: null })
  const whole = {
    ...ofVolumes,
    ...(await backupUsages.usage(db, projectId)),
    ...(await groupUsages.usage(db, projectId)),
  }
  return { whole, byType: await quotas.usageByType(db, projectId) }
}

/** Zero for what is not counted. */
function usedOf({ whole, byType }: Usages, { resource, typeId }: Quota): number {
  const usage: Partial<Record<string, number>> = { ...(typeId === null ? whole : byType.get(typeId)) }
  return usage[resource] ?? 0
}

interface Change {
  name: string
  quota: Quota
  limit: number
}

/** Throws InvalidInput that names every quota that there is not. */
function changesOf(
  limits: Readonly<Record<string, number>>,
  known: ReadonlyMap<string, Quota>,
  what: string,
): Change[] {
  const unknown = Object.keys(limits).filter((name) => !known.has(name))
  if (unknown.length > 0) {
    const shown = unknown
      .slice(0, 20)
      .map((name) => name.slice(0, 300))
      .join(', ')
    throw new ServiceError('InvalidInput', { reason: `Invalid input received: Bad key(s) in ${what}: ${shown}` })
  }
  return Object.entries(limits).map(([name, limit]) => ({ name, quota: known.get(name)!, limit }))
}

/** As upstream, asked only where the project has a limit of its own already. */
function checkNotBelowUsage(
  name: string,
  limit: number,
  own: readonly quotaLimits.QuotaLimitRow[],
  quota: Quota,
  usages: Usages,
): void {
  if (limit === -1 || limitAmong(own, quota.resource, quota.typeId) === undefined) return
  const used = usedOf(usages, quota)
  if (limit >= used) return
  const reason =
    `Quota ${name} limit must be equal or greater than existing resources. ` +
    `Current usage is ${used} and the requested limit is ${limit}.`
  throw new ServiceError('InvalidInput', { reason })
}

function toRow(scope: quotaLimits.QuotaLimitRow['scope'], owner: string) {
  return ({ quota, limit }: Change): quotaLimits.QuotaLimitRow => ({
    scope,
    owner,
    resource: quota.resource,
    volume_type_id: quota.typeId,
    hard_limit: limit,
  })
}

function mapValues<Value, Other>(
  map: ReadonlyMap<string, Value>,
  change: (value: Value) => Other,
): Record<string, Other> {
  return Object.fromEntries([...map].map(([key, value]) => [key, change(value)]))
}
