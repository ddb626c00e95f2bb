import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { TypeEncryption } from '../../services/model.ts'
import { text, wholeNumber } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'

/** Bits. */
const keySize = wholeNumber({ min: 0, pattern: /^-?[0-9]+$/ }).nullable()

const provider = text(255)
const controlLocation = z.enum(['front-end', 'back-end'], { error: "is not one of ['front-end', 'back-end']" })
const cipher = text(255).nullable()

/** Keys that nobody knows are ignored, as upstream does here. */
const CreateBody = z.strictObject({
  encryption: z.object({
    provider,
    control_location: controlLocation,
    cipher: cipher.optional(),
    key_size: keySize.optional(),
  }),
})

const UpdateBody = z.strictObject({
  encryption: z.object({
    provider: provider.optional(),
    control_location: controlLocation.optional(),
    cipher: cipher.optional(),
    key_size: keySize.optional(),
  }),
})

const Spec = z.object({
  provider: z.string().optional(),
  control_location: z.string().optional(),
  cipher: z.string().nullish(),
  key_size: z.int().nullish(),
})

/** Everything about it; nothing when the type is not encrypted. */
const Encryption = z
  .object({
    encryption_id: z.string(),
    volume_type_id: z.string(),
    provider: z.string(),
    control_location: z.string(),
    cipher: z.string().nullable(),
    key_size: z.int().nullable(),
    created_at: z.string(),
    updated_at: z.string().nullable(),
    deleted: z.boolean(),
    deleted_at: z.null(),
  })
  .partial()

export const typeEncryptionRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/types/:volume_type_id/encryption',
    operation: 'show_type_encryption',
    summary: 'Show how volumes of a type are encrypted',
    policy: 'volume_extension:volume_type_encryption:get',
    response: Encryption,
    handler: async ({ services, context, params }) => {
      const encryption = await services.typeEncryption.get(context, params.volume_type_id)
      return encryption === null ? {} : encryptionView(encryption)
    },
  }),
  defineRoute({
    method: 'POST',
    url: '/types/:volume_type_id/encryption',
    operation: 'create_type_encryption',
    summary: 'Say how volumes of a type are encrypted, before there are any',
    policy: 'volume_extension:volume_type_encryption:create',
    body: CreateBody,
    response: z.object({ encryption: Spec.extend({ volume_type_id: z.string(), encryption_id: z.string() }) }),
    handler: async ({ services, context, params, body: { encryption: request } }) => {
      const made = await services.typeEncryption.create(context, params.volume_type_id, {
        provider: request.provider,
        controlLocation: request.control_location,
        cipher: request.cipher ?? null,
        keySize: request.key_size ?? null,
      })
      return { encryption: { ...request, volume_type_id: made.volumeTypeId, encryption_id: made.id } }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/types/:volume_type_id/encryption/:key',
    operation: 'show_type_encryption_key',
    summary: 'Show one attribute of how volumes of a type are encrypted',
    policy: 'volume_extension:volume_type_encryption:get',
    response: Encryption,
    handler: async ({ services, context, params: { volume_type_id: id, key } }) => {
      const encryption = await services.typeEncryption.get(context, id)
      const view: Record<string, unknown> = encryption === null ? {} : encryptionView(encryption)
      if (Object.hasOwn(view, key)) return { [key]: view[key] }
      throw new ServiceError('VolumeTypeEncryptionNotFound', { type_id: id })
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/types/:volume_type_id/encryption/:key',
    operation: 'update_type_encryption',
    summary: 'Change how volumes of a type are encrypted, while there are none',
    policy: 'volume_extension:volume_type_encryption:update',
    body: UpdateBody,
    response: z.object({ encryption: Spec }),
    // A type has at most one, so nobody looks at the id that the path names.
    handler: async ({ services, context, params, body }) => {
      const { provider, control_location: controlLocation, cipher, key_size: keySize } = body.encryption
      await services.typeEncryption.update(context, params.volume_type_id, {
        ...(provider === undefined ? {} : { provider }),
        ...(controlLocation === undefined ? {} : { controlLocation }),
        ...(cipher === undefined ? {} : { cipher }),
        ...(keySize === undefined ? {} : { keySize }),
      })
      return body
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/types/:volume_type_id/encryption/:key',
    operation: 'delete_type_encryption',
    summary: 'Make volumes of a type unencrypted again, while there are none',
    policy: 'volume_extension:volume_type_encryption:delete',
    status: 202,
    handler: ({ services, context, params }) => services.typeEncryption.delete(context, params.volume_type_id),
  }),
]

function encryptionView(encryption: TypeEncryption): Required<z.input<typeof Encryption>> {
  return {
    encryption_id: encryption.id,
    volume_type_id: encryption.volumeTypeId,
    provider: encryption.provider,
    control_location: encryption.controlLocation,
    cipher: encryption.cipher,
    key_size: encryption.keySize,
    created_at: encryption.createdAt,
    updated_at: encryption.updatedAt,
    deleted: false,
    deleted_at: null,
  }
}
