import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import { sizeGib, text } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'

const URL = '/volumes/:volume_id/action'

/** Statuses that an administrator may write; upstream takes any of its 22, ours are those that a volume can have here. */
const STATUSES = [
  'creating',
  'available',
  'reserved',
  'attaching',
  'in-use',
  'detaching',
  'maintenance',
  'deleting',
  'extending',
  'error',
  'error_deleting',
  'error_extending',
] as const

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
    body: z.strictObject({ new_size: sizeGib }),
    status: 202,
    handler: async ({ services, context, params, body, supports }) => {
      if (!supports('3.42')) {
        const { status } = await services.volumes.get(context, params.volume_id)
        if (status !== 'available') {
          throw new ServiceError('InvalidVolume', {
            reason: `Volume ${params.volume_id} status must be 'available' to extend, currently ${status}.`,
          })
        }
      }
      await services.volumes.extend(context, params.volume_id, body.new_size)
    },
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
    body: z.strictObject({
      status: text(255)
        .toLowerCase()
        .pipe(z.enum(STATUSES, { error: `is not a status of a volume: ${STATUSES.join(', ')}` })),
    }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.volumes.resetStatus(context, params.volume_id, body.status),
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
]
