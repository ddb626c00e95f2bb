import { z } from 'zod'
import { text } from '../fields.ts'
import { adminOnly, since } from '../microversion.ts'
import { defineRoute, type Route } from '../route.ts'

const otherProject = since('3.39', adminOnly(text(255).optional()))

const Absolute = z.object({
  maxTotalVolumes: z.int(),
  maxTotalSnapshots: z.int(),
  maxTotalVolumeGigabytes: z.int(),
  maxTotalBackups: z.int(),
  maxTotalBackupGigabytes: z.int(),
  totalVolumesUsed: z.int(),
  totalSnapshotsUsed: z.int(),
  totalGigabytesUsed: z.int(),
  totalBackupsUsed: z.int(),
  totalBackupGigabytesUsed: z.int(),
})

export const limitRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/limits',
    operation: 'show_limits',
    summary: 'Quotas and what is used of them',
    policy: 'limits_extension:used_limits',
    query: z.object({ project_id: otherProject, tenant_id: otherProject }),
    response: z.object({ limits: z.object({ rate: z.array(z.never()), absolute: Absolute }) }),
    handler: async ({ services, context, query }) => {
      const projectId = query.project_id ?? query.tenant_id ?? context.projectId
      return { limits: { rate: [], absolute: await services.limits({ ...context, projectId }) } }
    },
  }),
]
