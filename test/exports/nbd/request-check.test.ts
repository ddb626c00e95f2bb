import { describe, expect, test } from 'vitest'
import { COMMAND, COMMAND_FLAG, NBD_ERROR } from '../../../src/exports/nbd/protocol.ts'
import { checkRequest, type ExportTerms } from '../../../src/exports/nbd/request-check.ts'

const MIB = 1024 * 1024
const TERMS: ExportTerms = { readOnly: false, structuredReplies: true, blockStatus: true }
const PLAIN = { ...TERMS, structuredReplies: false, blockStatus: false }
const READ_ONLY = { ...TERMS, readOnly: true }
const { READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS } = COMMAND
const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO } = COMMAND_FLAG
const { NONE, EPERM, EINVAL, ENOSPC, ENOTSUP } = NBD_ERROR
/** Beyond what any device has, and what a number holds exactly. */
const FAR = 2 ** 63

describe('checkRequest', () => {
  test.each<[string, number, number, number, number, ExportTerms, number]>([
    ['a read', READ, 0, 0, 512, TERMS, NONE],
    ['a read far beyond any number', READ, 0, FAR, 1, TERMS, EINVAL],
    ['a read of nothing', READ, 0, 0, 0, TERMS, EINVAL],
    ['the longest read', READ, 0, 0, 32 * MIB, TERMS, NONE],
    ['a longer read', READ, 0, 0, 32 * MIB + 1, TERMS, EINVAL],
    ['a read in one chunk', READ, DF, 0, 512, TERMS, NONE],
    ['DF without structured replies', READ, DF, 0, 512, PLAIN, EINVAL],
    ['FUA on a read', READ, FUA, 0, 512, PLAIN, NONE],
    ['NO_HOLE on a read', READ, NO_HOLE, 0, 512, TERMS, EINVAL],
    ['a write', WRITE, FUA, 0, 512, TERMS, NONE],
    ['a write far beyond any number', WRITE, 0, FAR, 1, TERMS, ENOSPC],
    ['a longer write than the limit', WRITE, 0, 0, 32 * MIB + 1, TERMS, EINVAL],
    ['a write to a read-only export', WRITE, 0, 0, 512, READ_ONLY, EPERM],
    ['a read of a read-only export', READ, 0, 0, 512, READ_ONLY, NONE],
    ['a trim longer than any payload', TRIM, FUA, 0, 512 * MIB, TERMS, NONE],
    ['a trim far beyond any number', TRIM, 0, FAR, 512, TERMS, EINVAL],
    ['a trim of a read-only export', TRIM, 0, 0, 512, READ_ONLY, EPERM],
    ['zeroes', WRITE_ZEROES, FUA | NO_HOLE, 0, 1024 * MIB, TERMS, NONE],
    ['fast zeroes of whole blocks', WRITE_ZEROES, FAST_ZERO | FUA, 4096, 1024 * MIB, TERMS, NONE],
    ['fast zeroes that must stay allocated', WRITE_ZEROES, FAST_ZERO | NO_HOLE, 0, 4096, TERMS, ENOTSUP],
    ['fast zeroes of part of a block', WRITE_ZEROES, FAST_ZERO, 0, 512, TERMS, ENOTSUP],
    ['fast zeroes that begin within a block', WRITE_ZEROES, FAST_ZERO, 512, 4096, TERMS, ENOTSUP],
    ['fast zeroes on a read-only export', WRITE_ZEROES, FAST_ZERO, 0, 512, READ_ONLY, EPERM],
    ['a fast write', WRITE, FAST_ZERO, 0, 4096, TERMS, EINVAL],
    ['zeroes far beyond any number', WRITE_ZEROES, FAST_ZERO, FAR, 512, TERMS, ENOSPC],
    ['zeroes on a read-only export', WRITE_ZEROES, 0, 0, 512, READ_ONLY, EPERM],
    ['a flush', FLUSH, 0, 0, 0, TERMS, NONE],
    ['a flush of a read-only export', FLUSH, 0, 0, 0, READ_ONLY, NONE],
    ['a flush of a range', FLUSH, 0, 0, 512, TERMS, EINVAL],
    ['a block status', BLOCK_STATUS, REQ_ONE, 0, 1024 * MIB, TERMS, NONE],
    ['a block status that was not negotiated', BLOCK_STATUS, 0, 0, 512, PLAIN, EINVAL],
    ['a block status far beyond any number', BLOCK_STATUS, 0, FAR, 512, TERMS, EINVAL],
    ['a farewell', DISC, 0, 0, 0, TERMS, NONE],
    ['a hint to cache', CACHE, 0, 0, 4096 * MIB - 1, READ_ONLY, NONE],
    ['a hint to cache nothing', CACHE, 0, 0, 0, TERMS, EINVAL],
    ['a hint to cache with a flag', CACHE, DF, 0, 512, TERMS, EINVAL],
    ['an unknown command', 99, 0, 0, 512, TERMS, EINVAL],
    ['an unknown flag', WRITE, 0x8000, 0, 512, TERMS, EINVAL],
  ])('%s', (_title, type, flags, offset, lengthBytes, terms, error) => {
    expect(checkRequest({ type, flags, offset, lengthBytes }, terms)).toBe(error)
  })
})
