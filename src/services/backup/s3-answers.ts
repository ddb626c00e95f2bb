import { XMLParser } from 'fast-xml-parser'
import { z } from 'zod'

/** There may be several of these. */
const LISTED = ['Contents', 'CommonPrefixes']
const parser = new XMLParser({
  ignoreAttributes: true,
  removeNSPrefix: true,
  parseTagValue: false,
  trimValues: false, // names may begin and end with spaces
  isArray: (name) => LISTED.includes(name),
})

/** An element with nothing in it is parsed as an empty text. */
const orEmpty = (value: unknown) => (value === '' ? {} : value)
const page = z.object({
  EncodingType: z.string().optional(),
  IsTruncated: z.string().optional(),
  NextContinuationToken: z.string().optional(),
  Contents: z.array(z.object({ Key: z.string() })).default([]),
  CommonPrefixes: z.array(z.object({ Prefix: z.string() })).default([]),
})
const listing = z.object({ ListBucketResult: z.preprocess(orEmpty, page) })
const failure = z.object({ Error: z.object({ Code: z.string(), Message: z.string().optional() }) })

/** One page of names, as ListObjectsV2 answers; `next` asks for the page after it. Null when it is no such answer. */
export function readListing(body: Buffer): { names: string[]; next: string | null } | null {
  const read = listing.safeParse(parsed(body))
  if (!read.success) return null
  const { EncodingType, IsTruncated, NextContinuationToken, Contents, CommonPrefixes } = read.data.ListBucketResult
  const names = [...Contents.map(({ Key }) => Key), ...CommonPrefixes.map(({ Prefix }) => Prefix)]
  return {
    names: EncodingType === 'url' ? names.map((name) => decodeURIComponent(name.replaceAll('+', '%20'))) : names,
    next: IsTruncated === 'true' ? (NextContinuationToken ?? null) : null,
  }
}

/** What an error says; an empty code when it says nothing that can be read. */
export function readFailure(body: Buffer): { code: string; message: string | null } {
  const read = failure.safeParse(parsed(body))
  return read.success
    ? { code: read.data.Error.Code, message: read.data.Error.Message ?? null }
    : { code: '', message: null }
}

/** Null for what is no XML. */
function parsed(body: Buffer): unknown {
  try {
    return parser.parse(body)
  } catch {
    return null
  }
}
