import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import { type HttpClient, HttpFailure, type HttpResponse, readBody } from '../../runtime/http-client.ts'
import type { Image, ImageDraft, ImageService } from './image-service.ts'

/** OpenStack's image service, version 2 of its API. */

/** What it says of an image by itself. Everything else that is text is a property of the image. */
const ImageDocument = z.looseObject({
  id: z.uuid(),
  name: z.string().nullish(),
  status: z.string(),
  size: z.int().min(0).nullish(),
  virtual_size: z.int().min(0).nullish(),
  min_disk: z.int().min(0).nullish(),
  min_ram: z.int().min(0).nullish(),
  disk_format: z.string().nullish(),
  container_format: z.string().nullish(),
  checksum: z.string().nullish(),
  os_hash_algo: z.string().nullish(),
  os_hash_value: z.string().nullish(),
  visibility: z.string().nullish(),
  protected: z.boolean().nullish(),
})

const OTHER_BASE_KEYS = [
  'created_at',
  'updated_at',
  'tags',
  'self',
  'file',
  'schema',
  'owner',
  'os_hidden',
  'direct_url',
  'locations',
  'stores',
]
const BASE_KEYS: ReadonlySet<string> = new Set([...Object.keys(ImageDocument.shape), ...OTHER_BASE_KEYS])

const ImageList = z.looseObject({ images: z.array(ImageDocument) })

const JSON_TYPE = 'application/json'
const BODY_TYPE = 'application/octet-stream'
/** Of a document; an image has a few KiB. */
const DOCUMENT_BYTES_MAX = 1024 * 1024

export function createGlance(options: { http: HttpClient; url: string; timeoutMs: number }): ImageService {
  const { http, timeoutMs } = options
  const base = `${options.url.replace(/\/+$/, '').replace(/\/v2$/, '')}/v2/images`

  async function ask(
    token: string,
    request: { method: 'GET' | 'POST' | 'DELETE'; path?: string; document?: unknown },
    imageId: string,
  ): Promise<HttpResponse> {
    const body = request.document === undefined ? {} : { body: Buffer.from(JSON.stringify(request.document)) }
    const type = request.document === undefined ? {} : { 'content-type': JSON_TYPE }
    const answer = await reached(
      http.request({
        method: request.method,
        url: base + (request.path ?? ''),
        headers: { 'x-auth-token': token, ...type },
        timeoutMs,
        ...body,
      }),
    )
    return accepted(answer, imageId)
  }

  const imageOf = async (token: string, id: string, rest = '') =>
    ask(token, { method: 'GET', path: `/${encodeURIComponent(id)}${rest}` }, id)

  return {
    show: async (token, id) => toImage(parse(ImageDocument, await documentOf(await imageOf(token, id)))),
    named: async (token, name) => {
      // Said with the operator: a name with a colon in it would be taken for another one.
      const query = `?limit=2&name=${encodeURIComponent(`eq:${name}`)}`
      const answer = await ask(token, { method: 'GET', path: query }, name)
      return parse(ImageList, await documentOf(answer)).images.map(toImage)
    },
    create: async (token, draft) => {
      const answer = await ask(token, { method: 'POST', document: toDocument(draft) }, draft.name)
      return toImage(parse(ImageDocument, await documentOf(answer)))
    },
    remove: async (token, id) => {
      try {
        ;(await ask(token, { method: 'DELETE', path: `/${encodeURIComponent(id)}` }, id)).destroy()
      } catch (error) {
        if (!(error instanceof ServiceError && error.code === 'ImageNotFound')) throw error
      }
    },
    download: async (token, id) => {
      const answer = await imageOf(token, id, '/file')
      // It answers 204 for an image that has no content.
      return { read: () => reached(answer.read()), close: () => answer.destroy() }
    },
    upload: (token, id, sizeBytes) => {
      const upload = http.upload({
        method: 'PUT',
        url: `${base}/${encodeURIComponent(id)}/file`,
        headers: { 'x-auth-token': token, 'content-type': BODY_TYPE },
        lengthBytes: sizeBytes,
        timeoutMs,
      })
      return {
        write: (bytes) => reached(upload.write(bytes)),
        finish: async () => (await accepted(await reached(upload.end()), id)).destroy(),
        abort: () => upload.destroy(),
      }
    },
  }
}

async function reached<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (!(error instanceof HttpFailure)) throw error
    throw new ServiceError('GlanceConnectionFailed', { reason: error.message }, { cause: error })
  }
}

async function accepted(answer: HttpResponse, imageId: string): Promise<HttpResponse> {
  const { status } = answer
  if (status >= 200 && status < 300) return answer
  if (status === 404) throw dropped(answer, new ServiceError('ImageNotFound', { image_id: imageId }))
  if (status === 401 || status === 403) {
    throw dropped(answer, new ServiceError('ImageNotAuthorized', { image_id: imageId }))
  }
  if (status >= 500) {
    throw dropped(answer, new ServiceError('GlanceConnectionFailed', { reason: `it answers with status ${status}` }))
  }
  const text = plain(await textOf(answer))
  throw new ServiceError('ImageRefused', { reason: `${status} ${text}`.trim() })
}

async function textOf(answer: HttpResponse): Promise<string> {
  return (await reached(readBody(answer, DOCUMENT_BYTES_MAX))).toString()
}

function dropped(answer: HttpResponse, error: ServiceError): ServiceError {
  answer.destroy()
  return error
}

async function documentOf(answer: HttpResponse): Promise<unknown> {
  try {
    return JSON.parse(await textOf(answer))
  } catch (error) {
    if (error instanceof ServiceError) throw error
    throw strange(error)
  }
}

function parse<S extends z.ZodType>(schema: S, document: unknown): z.output<S> {
  const parsed = schema.safeParse(document)
  if (!parsed.success) throw strange(parsed.error)
  return parsed.data
}

function strange(cause?: unknown): ServiceError {
  const reason = 'its answer is not that of an image service'
  return new ServiceError('GlanceConnectionFailed', { reason }, { cause })
}

/** What it answers is a page of HTML. */
const REFUSAL_CHARACTERS_MAX = 200
function plain(html: string): string {
  const text = html.replace(/<title>.*?<\/title>/gs, '').replace(/<[^>]*>/g, ' ')
  return text.replace(/\s+/g, ' ').trim().slice(0, REFUSAL_CHARACTERS_MAX)
}

function toImage(document: z.output<typeof ImageDocument>): Image {
  const { os_hash_algo: algorithm, os_hash_value: value } = document
  return {
    id: document.id,
    name: document.name ?? null,
    status: document.status,
    sizeBytes: document.size ?? null,
    virtualSizeBytes: document.virtual_size ?? null,
    minDiskGib: document.min_disk ?? 0,
    minRamMib: document.min_ram ?? 0,
    diskFormat: document.disk_format ?? null,
    containerFormat: document.container_format ?? null,
    checksum: document.checksum ?? null,
    hash: algorithm && value ? { algorithm, value } : null,
    visibility: document.visibility ?? null,
    isProtected: document.protected ?? false,
    properties: Object.fromEntries(
      Object.entries(document).filter(
        (entry): entry is [string, string] => !BASE_KEYS.has(entry[0]) && typeof entry[1] === 'string',
      ),
    ),
  }
}

function toDocument({ name, diskFormat, containerFormat, visibility, isProtected, properties }: ImageDraft) {
  return {
    ...properties,
    name,
    disk_format: diskFormat,
    container_format: containerFormat,
    ...(visibility === null ? {} : { visibility }),
    ...(isProtected === null ? {} : { protected: isProtected }),
  }
}
