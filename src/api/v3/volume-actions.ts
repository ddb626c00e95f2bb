import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { Volume } from '../../services/model.ts'
import { MIGRATION_STATUSES, NAMED_VOLUME_STATUSES } from '../../services/statuses.ts'
import { flag, guid, sizeGib, statusOf, text } from '../fields.ts'
import { since } from '../microversion.ts'
import { defineRoute, type Route } from '../route.ts'
import { repr, WHOLE_SENTENCE } from '../validation.ts'

const URL = '/volumes/:volume_id/action'

/** Null and an empty text say nothing. */
function orNothing<Status extends z.ZodType>(status: Status) {
  return z.preprocess((word) => (word === '' ? null : word), status.nullish())
}

const ATTACH_STATUSES = ['attached', 'detached'] as const

const ResetBody = z
  .strictObject({
    status: orNothing(statusOf('Volume', NAMED_VOLUME_STATUSES)).optional(),
    attach_status: orNothing(statusOf('Volume attach', ATTACH_STATUSES, repr(ATTACH_STATUSES))).optional(),
    migration_status: orNothing(statusOf('Volume migration', MIGRATION_STATUSES)).optional(),
  })
  .refine((body) => body.status || body.attach_status || body.migration_status, {
    error: "Must specify 'status', 'attach_status' or 'migration_status' for update.",
    params: WHOLE_SENTENCE,
  })

/** An old way to say that something failed: true, or any text that is not empty. */
const failure = z.union([z.boolean(), z.string()], { error: "is not of type 'string', 'null', 'boolean'" }).nullish()

/** Actions without parameters take anything below their key: Nova sends null, clients an empty object. */
const anything = z.unknown()

export const volumeActionRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-extend',
    operation: 'extend_volume',
    summary: 'Grow a volume; one that is in use from 3.42 on',
    policy: 'volume:extend',
    asks: ({ target, supports }) =>
      supports('3.42') && (target as Volume).status === 'in-use' && 'volume:extend_attached_volume',
    body: z.strictObject({ new_size: sizeGib }),
    status: 202,
    handler: ({ services, context, params, body, supports }) =>
      services.volumes.extend(context, params.volume_id, body.new_size, { inUse: supports('3.42') }),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-begin_detaching',
    operation: 'begin_detaching_volume',
    summary: 'Mark a volume as detaching, before the guest lets go of it',
    policy: 'volume_extension:volume_actions:begin_detaching',
    body: anything,
    status: 202,
    handler: ({ services, context, params }) => services.volumes.beginDetaching(context, params.volume_id),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-roll_detaching',
    operation: 'roll_detaching_volume',
    summary: 'Undo os-begin_detaching',
    policy: 'volume_extension:volume_actions:roll_detaching',
    body: anything,
    status: 202,
    handler: ({ services, context, params }) => services.volumes.rollDetaching(context, params.volume_id),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-reset_status',
    operation: 'reset_volume_status',
    summary: 'Write the status of a volume without asking the backend',
    policy: 'volume_extension:volume_admin_actions:reset_status',
    body: ResetBody,
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.volumes.resetStatus(context, params.volume_id, body.status ?? null, {
        attachStatus: body.attach_status ?? null,
        migrationStatus: body.migration_status ?? null,
      }),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-force_delete',
    operation: 'force_delete_volume',
    summary: 'Delete a volume whatever its status is',
    policy: 'volume_extension:volume_admin_actions:force_delete',
    body: anything,
    status: 202,
    handler: ({ services, context, params }) =>
      services.volumes.delete(context, params.volume_id, { cascade: false, force: true }),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-unmanage',
    operation: 'unmanage_volume',
    summary: 'Forget a volume and leave what the backend has of it',
    policy: 'volume_extension:volume_unmanage',
    body: anything,
    status: 202,
    handler: ({ services, context, params }) => services.volumes.unmanage(context, params.volume_id),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-set_bootable',
    operation: 'set_volume_bootable',
    summary: 'Say whether a volume can be booted from',
    policy: 'volume:update',
    body: z.strictObject({ bootable: flag }),
    handler: ({ services, context, params, body }) =>
      services.volumes.setBootable(context, params.volume_id, body.bootable),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-update_readonly_flag',
    operation: 'set_volume_readonly',
    summary: 'Say whether a volume can only be attached for reading',
    policy: 'volume:update_readonly_flag',
    body: z.strictObject({ readonly: flag }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.volumes.setReadonly(context, params.volume_id, body.readonly),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'revert',
    operation: 'revert_volume',
    summary: 'Put a volume back to its latest snapshot',
    since: '3.40',
    policy: 'volume:revert_to_snapshot',
    body: z.object({ snapshot_id: text(255).nullish() }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.volumes.revert(context, params.volume_id, body.snapshot_id ?? null),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-retype',
    operation: 'retype_volume',
    summary: 'Give a volume another type',
    policy: 'volume:retype',
    body: z.strictObject({
      new_type: text(1024),
      migration_policy: z.enum(['on-demand', 'never'], { error: "is not one of ['on-demand', 'never']" }).optional(),
    }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.volumes.retype(context, params.volume_id, {
        newType: body.new_type,
        migrationPolicy: body.migration_policy ?? 'never',
      }),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-migrate_volume',
    operation: 'migrate_volume',
    summary: 'Move a volume to another backend',
    policy: 'volume_extension:volume_admin_actions:migrate_volume',
    body: z.strictObject({
      host: text(255).nullish(),
      force_host_copy: flag.optional(),
      lock_volume: flag.optional(),
      cluster: since('3.16', text(255).nullish()),
    }),
    status: 202,
    handler: async ({ services, context, params, body, supports }) => {
      const [host, cluster] = [body.host || null, body.cluster || null]
      if ((host === null) === (cluster === null)) {
        const reason = supports('3.16')
          ? 'Invalid input received: One and only one of cluster and host must be set.'
          : 'Invalid input received: Host field is missing.'
        throw new ServiceError('InvalidInput', { reason })
      }
      await services.volumes.migrate(context, params.volume_id, { host, cluster })
    },
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-migrate_volume_completion',
    operation: 'complete_volume_migration',
    summary: 'Tell that Nova has moved a guest to the new volume',
    policy: 'volume_extension:volume_admin_actions:migrate_volume_completion',
    body: z.strictObject({ new_volume: guid, error: failure }),
    response: z.object({ save_volume_id: z.string() }),
    handler: async ({ services, context, params, body }) => ({
      save_volume_id: await services.volumes.completeMigration(context, params.volume_id, {
        newVolumeId: body.new_volume,
        failed: Boolean(body.error),
      }),
    }),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-extend_volume_completion',
    operation: 'complete_volume_extension',
    summary: 'Tell that the compute host has extended its side of a volume; clients look for 3.71 before they do',
    policy: 'volume_extension:volume_admin_actions:extend_volume_completion',
    body: z.strictObject({ error: failure }),
    status: 202,
    handler: ({ services, context, params }) => services.volumes.completeExtension(context, params.volume_id),
  }),
]
