import { z } from 'zod'
import { text } from '../fields.ts'
import { adminOnly, since } from '../microversion.ts'
import { defineRoute, type Route } from '../route.ts'

const otherProject = since('3.39', adminOnly(text(255).optional()))

/** What is used is left out for those who may not know it: `limits_extension:used_limits`. */
const Absolute = z.object({
  maxTotalVolumes: z.int(),
  maxTotalSnapshots: z.int(),
  maxTotalVolumeGigabytes: z.int(),
  maxTotalBackups: z.int(),
  maxTotalBackupGigabytes: z.int(),
  totalVolumesUsed: z.int().optional(),
  totalSnapshotsUsed: z.int().optional(),
  totalGigabytesUsed: z.int().optional(),
  totalBackupsUsed: z.int().optional(),
  totalBackupGigabytesUsed: z.int().optional(),
})

export const limitRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/limits',
    operation: 'show_limits',
    summary: 'Quotas and what is used of them',
    policy: null,
    query: z.object({ project_id: otherProject, tenant_id: otherProject }),
    response: z.object({ limits: z.object({ rate: z.array(z.never()), absolute: Absolute }) }),
    handler: async ({ services, context, query }) => {
      const projectId = query.project_id ?? query.tenant_id ?? context.projectId
      const quotas = await services.quotas.limits(context, projectId)
      const most = {
        maxTotalVolumes: quotas.volumes.limit,
        maxTotalSnapshots: quotas.snapshots.limit,
        maxTotalVolumeGigabytes: quotas.gigabytes.limit,
        maxTotalBackups: quotas.backups.limit,
        maxTotalBackupGigabytes: quotas.backup_gigabytes.limit,
      }
      const used = {
        totalVolumesUsed: quotas.volumes.used,
        totalSnapshotsUsed: quotas.snapshots.used,
        totalGigabytesUsed: quotas.gigabytes.used,
        totalBackupsUsed: quotas.backups.used,
        totalBackupGigabytesUsed: quotas.backup_gigabytes.used,
      }
      const seesUsed = context.allows('limits_extension:used_limits')
      return { limits: { rate: [], absolute: seesUsed ? { ...most, ...used } : most } }
    },
  }),
]
