import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import { METADATA_KEY, pairsOf, text } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'

/** Metadata of the image that a volume was made from, kept with the volume. */

const URL = '/volumes/:volume_id/action'

/** Values are as long as those of images. */
const metadata = pairsOf(METADATA_KEY, text(65_535))

const ImageMetadata = z.object({ metadata: z.record(z.string(), z.string()) })

export const volumeImageMetadataRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-set_image_metadata',
    operation: 'set_volume_image_metadata',
    summary: 'Add to the image metadata of a volume',
    policy: 'volume_extension:volume_image_metadata:set',
    body: z.strictObject({ metadata }),
    response: ImageMetadata,
    handler: async ({ services, context, params, body }) => ({
      metadata: await services.volumes.setImageMetadata(context, params.volume_id, body.metadata),
    }),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-show_image_metadata',
    operation: 'show_volume_image_metadata',
    summary: 'Show the image metadata of a volume',
    policy: 'volume:get_volume_metadata',
    body: z.unknown(),
    response: ImageMetadata,
    handler: async ({ services, context, params }) => {
      const { id, imageMetadata: metadata } = await services.volumes.get(context, params.volume_id)
      if (Object.keys(metadata).length === 0) throw new ServiceError('ImageMetadataNotFound', { id })
      return { metadata }
    },
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-unset_image_metadata',
    operation: 'unset_volume_image_metadata',
    summary: 'Remove a key from the image metadata of a volume',
    policy: 'volume_extension:volume_image_metadata:remove',
    body: z.strictObject({ key: text(255).min(1) }),
    handler: ({ services, context, params, body }) =>
      services.volumes.unsetImageMetadata(context, params.volume_id, body.key),
  }),
]
