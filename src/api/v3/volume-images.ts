import { z } from 'zod'
import { IMAGE_FORMATS } from '../../services/images/formats.ts'
import type { StartedUpload, Volume } from '../../services/model.ts'
import { flag, guid, text } from '../fields.ts'
import { since } from '../microversion.ts'
import { defineRoute, type Route } from '../route.ts'

/** Images of the image service: into volumes that there are, and out of them. */

const URL = '/volumes/:volume_id/action'

const nullableText = z.string().nullable()

const UploadBody = z.strictObject({
  image_name: text(255).min(1, { error: 'is empty' }),
  force: flag.optional(),
  disk_format: z.enum([...IMAGE_FORMATS, 'ploop'], { error: 'is not a disk format' }).optional(),
  container_format: text(255).nullish(),
  visibility: since(
    '3.1',
    z.enum(['community', 'public', 'private', 'shared'], { error: 'is not a visibility' }).optional(),
  ),
  protected: since('3.1', flag.optional()),
})

const Upload = z.object({
  'os-volume_upload_image': z.object({
    id: z.string(),
    updated_at: nullableText,
    status: z.string(),
    display_description: nullableText,
    size: z.int(),
    volume_type: z.object({ id: z.string(), name: z.string() }).nullable(),
    image_id: z.string(),
    container_format: nullableText,
    disk_format: nullableText,
    image_name: nullableText,
    protected: z.boolean(),
    visibility: nullableText,
  }),
})

export const volumeImageRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-reimage',
    operation: 'reimage_volume',
    summary: 'Write an image over a volume',
    since: '3.68',
    policy: 'volume:reimage',
    asks: ({ target }) => (target as Volume).status === 'reserved' && 'volume:reimage_reserved',
    body: z.strictObject({ image_id: guid, reimage_reserved: flag.optional() }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.volumes.reimage(context, params.volume_id, {
        imageId: body.image_id,
        reserved: body.reimage_reserved ?? false,
      }),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-volume_upload_image',
    operation: 'upload_volume_to_image',
    summary: 'Make an image of a volume',
    policy: 'volume_extension:volume_actions:upload_image',
    body: UploadBody,
    response: Upload,
    status: 202,
    handler: async ({ services, context, params, body, supports }) => {
      const named = supports('3.1')
      const upload = await services.volumes.uploadImage(context, params.volume_id, {
        imageName: body.image_name,
        diskFormat: body.disk_format ?? 'raw',
        containerFormat: body.container_format ?? 'bare',
        visibility: named ? (body.visibility ?? 'private') : null,
        isProtected: named ? (body.protected ?? false) : null,
        force: body.force ?? false,
      })
      return { 'os-volume_upload_image': uploadView(upload) }
    },
  }),
]

function uploadView({ volume, image }: StartedUpload): z.input<typeof Upload>['os-volume_upload_image'] {
  return {
    id: volume.id,
    updated_at: volume.updatedAt,
    status: volume.status,
    display_description: volume.description,
    size: volume.sizeGib,
    volume_type: { id: volume.volumeTypeId, name: volume.volumeTypeName },
    image_id: image.id,
    container_format: image.containerFormat,
    disk_format: image.diskFormat,
    image_name: image.name,
    protected: image.isProtected,
    visibility: image.visibility,
  }
}
