import { z } from 'zod'
import { SNAPSHOT_STATUSES } from '../../services/statuses.ts'
import { statusOf, text } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'
import { WHOLE_SENTENCE } from '../validation.ts'

const URL = '/snapshots/:snapshot_id/action'

/** Actions without parameters take anything below their key: Nova sends null, clients an empty object. */
const anything = z.unknown()

const PROGRESS_REASON = 'Invalid input received: progress must be an integer percentage'

/** `80%`; upstream takes null and the empty text for none. */
const progress = text(255)
  .refine((word) => word === '' || /^-?\d+.$/.test(word), {
    error: PROGRESS_REASON,
    params: WHOLE_SENTENCE,
    abort: true,
  })
  .refine((word) => word === '' || /^(\d{1,2}|100)%$/.test(word), {
    error: `${PROGRESS_REASON} between 0 and 100`,
    params: WHOLE_SENTENCE,
  })
  .nullish()
  .transform((word) => word || null)

export const snapshotActionRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-reset_status',
    operation: 'reset_snapshot_status',
    summary: 'Write the status of a snapshot without asking the backend',
    policy: 'volume_extension:snapshot_admin_actions:reset_status',
    body: z.strictObject({ status: statusOf('Snapshot', SNAPSHOT_STATUSES) }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.snapshots.resetStatus(context, params.snapshot_id, body.status),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-force_delete',
    operation: 'force_delete_snapshot',
    summary: 'Delete a snapshot whatever its status is',
    policy: 'volume_extension:snapshot_admin_actions:force_delete',
    body: anything,
    status: 202,
    handler: ({ services, context, params }) => services.snapshots.delete(context, params.snapshot_id, { force: true }),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-update_snapshot_status',
    operation: 'update_snapshot_status',
    summary: 'Say how far a snapshot is that is made or deleted outside',
    policy: 'snapshot_extension:snapshot_actions:update_snapshot_status',
    body: z.strictObject({ status: text(255), progress }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.snapshots.updateStatus(context, params.snapshot_id, body),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-unmanage',
    operation: 'unmanage_snapshot',
    summary: 'Forget a snapshot; the backend keeps it',
    policy: 'snapshot_extension:snapshot_unmanage',
    body: anything,
    status: 202,
    handler: ({ services, context, params }) => services.snapshots.unmanage(context, params.snapshot_id),
  }),
]
