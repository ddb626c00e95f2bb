import { createHash } from 'node:crypto'
import { AwsV4Signer } from 'aws4fetch'
import { ServiceError } from '../../errors.ts'
import { formatTime } from '../../runtime/clock.ts'
import { createObjectRequests, type ObjectAnswer, type ObjectPorts } from './object-requests.ts'
import { createObjectTarget, type ObjectStore } from './object-target.ts'
import { readFailure, readListing } from './s3-answers.ts'
import type { BackupTarget } from './target.ts'

export interface S3Options {
  endpoint: string
  region: string
  bucket: string
  /** Empty, or ends with `/`. */
  prefix: string
  accessKey: string
  secretKey: string
  /** Whether the bucket is a part of the path or of the host name. */
  addressing: 'path' | 'host'
  timeoutMs: number
  /** Names in one answer; 1000 when absent, which is the most that S3 gives. */
  listedMax?: number
}

const LISTED_MAX = 1000

/** What to do about errors of S3, by their codes; the settings are named as they are written. */
const ADVICE: Readonly<Record<string, string>> = {
  InvalidAccessKeyId: 'backup_s3.access_key: the store does not know it',
  SignatureDoesNotMatch: 'backup_s3.secret_key is not that of backup_s3.access_key (or backup_s3.region is another)',
  AuthorizationHeaderMalformed: 'backup_s3.region is not that of the bucket',
  PermanentRedirect: 'backup_s3.region or backup_s3.endpoint is not that of the bucket',
  NoSuchBucket: 'backup_s3.bucket: there is none of that name; make it, or name another',
  AccessDenied: 'backup_s3.access_key may not read, write, list and delete in backup_s3.bucket',
  RequestTimeTooSkewed: 'the clocks of this host and of the store differ too much: set this one right',
}

/**
 * Backups in a bucket of S3 or of what speaks its protocol. A put carries the SHA-256 of its bytes inside the signature, so that the
 * store refuses what arrives otherwise; what is got is checked by who reads it.
 *
 * Source: Amazon S3 API Reference (PutObject, GetObject, ListObjectsV2, DeleteObject, "Error responses").
 */
export function createS3Target(ports: ObjectPorts & { close(): void }, options: S3Options): BackupTarget {
  const { bucket, prefix, region } = options
  const requests = createObjectRequests(ports, { who: `S3 at ${options.endpoint}`, timeoutMs: options.timeoutMs })
  const base = baseUrl(options)
  const signingKeys = new Map<string, ArrayBuffer>()

  async function send(
    method: 'GET' | 'PUT' | 'DELETE',
    { key = '', query = '', body }: { key?: string; query?: string; body?: Buffer },
  ): Promise<ObjectAnswer> {
    const url = `${base}/${key.split('/').map(encodeURIComponent).join('/')}${query}`
    const digest = createHash('sha256')
      .update(body ?? '')
      .digest('hex')
    return requests.send(async () => {
      const signed = await new AwsV4Signer({
        method,
        url,
        service: 's3',
        region,
        accessKeyId: options.accessKey,
        secretAccessKey: options.secretKey,
        cache: signingKeys,
        datetime: formatTime(ports.clock.now()).replace(/[:-]|\.\d{3}/g, ''),
        headers: { 'x-amz-content-sha256': digest },
      }).sign()
      const headers = Object.fromEntries(signed.headers)
      return { method, url: signed.url.href, headers, ...(body === undefined ? {} : { body }) }
    })
  }

  const store: ObjectStore = {
    service: 'cinder.backup.drivers.collie.s3',
    put: async (key, body) => {
      const answer = await send('PUT', { key: prefix + key, body })
      if (answer.status !== 200) throw refusal(answer, `put ${key} to bucket ${bucket}`)
    },
    get: async (key) => {
      const answer = await send('GET', { key: prefix + key })
      if (answer.status === 200) return answer.body
      if (answer.status === 404 && codeOf(answer) !== 'NoSuchBucket') return null
      throw refusal(answer, `get ${key} from bucket ${bucket}`)
    },
    list: async (start, after) => {
      const words = {
        'list-type': '2',
        delimiter: '/',
        'encoding-type': 'url',
        'max-keys': String(options.listedMax ?? LISTED_MAX),
        prefix: prefix + start,
      }
      const query = new URLSearchParams(after === null ? words : { ...words, 'continuation-token': after })
      const answer = await send('GET', { query: `?${query}` })
      const page = answer.status === 200 ? readListing(answer.body) : null
      if (page === null) throw refusal(answer, `list bucket ${bucket}`)
      return { keys: page.names.map((name) => name.slice(prefix.length)), next: page.next }
    },
    remove: async (key) => {
      const answer = await send('DELETE', { key: prefix + key })
      const isGone = answer.status === 404 && codeOf(answer) !== 'NoSuchBucket'
      if (answer.status !== 204 && answer.status !== 200 && !isGone)
        throw refusal(answer, `delete ${key} in bucket ${bucket}`)
    },
    close: ports.close,
  }
  return createObjectTarget(store)
}

/** Without a `/` at its end. */
function baseUrl({ endpoint, bucket, addressing }: S3Options): string {
  const url = new URL(endpoint)
  const path = url.pathname.replace(/\/+$/, '')
  if (addressing === 'host') return `${url.protocol}//${bucket}.${url.host}${path}`
  return `${url.protocol}//${url.host}${path}/${encodeURIComponent(bucket)}`
}

const codeOf = ({ body }: ObjectAnswer): string => readFailure(body).code

/** An error of S3 tells, of some codes, what it was asked: keys and signatures. Only code and message are taken of it. */
function refusal(answer: ObjectAnswer, what: string): ServiceError {
  const { code, message: said } = readFailure(answer.body)
  const message = code === 'SignatureDoesNotMatch' ? null : said
  const region = answer.headers['x-amz-bucket-region']
  const told = [`status ${answer.status}`, code, message?.slice(0, 200)].filter(Boolean).join(', ')
  const advice = ADVICE[code] ?? (answer.status === 403 ? ADVICE.AccessDenied : undefined)
  const place = typeof region === 'string' ? ` (the bucket is in ${region})` : ''
  const reason = `the backup target could not ${what}: ${advice === undefined ? '' : `${advice}${place}; `}it answers ${told}`
  return new ServiceError('BackendFailure', { reason })
}
