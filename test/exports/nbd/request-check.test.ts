import { describe, expect, test } from 'vitest'
import { COMMAND, COMMAND_FLAG, NBD_ERROR } from '../../../src/exports/nbd/protocol.ts'
import { checkRequest, type ExportTerms } from '../../../src/exports/nbd/request-check.ts'

const MIB = 1024 * 1024
const TERMS: ExportTerms = { sizeBytes: 1024 * MIB, readOnly: false, structuredReplies: true, blockStatus: true }
const PLAIN = { ...TERMS, structuredReplies: false, blockStatus: false }
const READ_ONLY = { ...TERMS, readOnly: true }
const { READ, WRITE, DISC, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS } = COMMAND
const { FUA, NO_HOLE, DF, REQ_ONE } = COMMAND_FLAG
const { NONE, EPERM, EINVAL, ENOSPC } = NBD_ERROR

describe('checkRequest', () => {
  test.each<[string, number, number, number, number, ExportTerms, number]>([
    ['a read', READ, 0, 0, 512, TERMS, NONE],
    ['a read of the last byte', READ, 0, TERMS.sizeBytes - 1, 1, TERMS, NONE],
    ['a read beyond the end', READ, 0, TERMS.sizeBytes - 1, 2, TERMS, EINVAL],
    ['a read far beyond any number', READ, 0, 2 ** 64, 1, TERMS, EINVAL],
    ['a read of nothing', READ, 0, 0, 0, TERMS, EINVAL],
    ['the longest read', READ, 0, 0, 32 * MIB, TERMS, NONE],
    ['a longer read', READ, 0, 0, 32 * MIB + 1, TERMS, EINVAL],
    ['a read in one chunk', READ, DF, 0, 512, TERMS, NONE],
    ['DF without structured replies', READ, DF, 0, 512, PLAIN, EINVAL],
    ['FUA on a read', READ, FUA, 0, 512, PLAIN, NONE],
    ['NO_HOLE on a read', READ, NO_HOLE, 0, 512, TERMS, EINVAL],
    ['a write', WRITE, FUA, 0, 512, TERMS, NONE],
    ['a write beyond the end', WRITE, 0, TERMS.sizeBytes, 1, TERMS, ENOSPC],
    ['a longer write than the limit', WRITE, 0, 0, 32 * MIB + 1, TERMS, EINVAL],
    ['a write to a read-only export', WRITE, 0, 0, 512, READ_ONLY, EPERM],
    ['a read of a read-only export', READ, 0, 0, 512, READ_ONLY, NONE],
    ['a trim longer than any payload', TRIM, FUA, 0, 512 * MIB, TERMS, NONE],
    ['a trim beyond the end', TRIM, 0, MIB, 1024 * MIB, TERMS, EINVAL],
    ['a trim of a read-only export', TRIM, 0, 0, 512, READ_ONLY, EPERM],
    ['zeroes', WRITE_ZEROES, FUA | NO_HOLE, 0, 1024 * MIB, TERMS, NONE],
    ['fast zeroes, which were not offered', WRITE_ZEROES, 16, 0, 512, TERMS, EINVAL],
    ['zeroes beyond the end', WRITE_ZEROES, 0, 1, 1024 * MIB, TERMS, ENOSPC],
    ['zeroes on a read-only export', WRITE_ZEROES, 0, 0, 512, READ_ONLY, EPERM],
    ['a flush', FLUSH, 0, 0, 0, TERMS, NONE],
    ['a flush of a read-only export', FLUSH, 0, 0, 0, READ_ONLY, NONE],
    ['a flush of a range', FLUSH, 0, 0, 512, TERMS, EINVAL],
    ['a block status', BLOCK_STATUS, REQ_ONE, 0, 1024 * MIB, TERMS, NONE],
    ['a block status that was not negotiated', BLOCK_STATUS, 0, 0, 512, PLAIN, EINVAL],
    ['a block status beyond the end', BLOCK_STATUS, 0, 1, 1024 * MIB, TERMS, EINVAL],
    ['a farewell', DISC, 0, 0, 0, TERMS, NONE],
    ['a cache request, which was not offered', 5, 0, 0, 512, TERMS, EINVAL],
    ['an unknown command', 99, 0, 0, 512, TERMS, EINVAL],
    ['an unknown flag', WRITE, 0x8000, 0, 512, TERMS, EINVAL],
  ])('%s', (_title, type, flags, offset, lengthBytes, terms, error) => {
    expect(checkRequest({ type, flags, offset, lengthBytes }, terms)).toBe(error)
  })
})
