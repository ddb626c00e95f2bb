import { appendFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { contentOf, SECTOR_BYTES, WriteLedger } from './write-ledger.ts'

/** What finds lost writes must find them: the crash tests are worth as much as this. */

const ZEROS = Buffer.alloc(SECTOR_BYTES)
let file: string
let ledger: WriteLedger

beforeEach(() => {
  const directory = mkdtempSync(path.join(tmpdir(), 'ledger-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  file = path.join(directory, 'ledger')
  ledger = reopen()
})

const reopen = () => WriteLedger.open(file, 64 * SECTOR_BYTES)

function write(firstSector: number, sectors = 1): Buffer {
  const number = ledger.sent('data', firstSector, sectors)
  ledger.acknowledged(number)
  return contentOf(number, firstSector, sectors)
}

describe('a ledger', () => {
  it('wants an acknowledged write, and nothing else', () => {
    const first = write(3, 2)
    const second = write(3)
    const both = Buffer.concat([second, first.subarray(SECTOR_BYTES)])
    ledger.check(3, both)
    expect(() => ledger.check(3, first)).toThrow('sector 3 (byte 1536) holds write 1 instead of write 2')
    expect(() => ledger.check(3, ZEROS)).toThrow('holds zeros instead of write 2')
    expect(() => ledger.check(5, first)).toThrow('what no single write left instead of zeros')
    both[SECTOR_BYTES - 1]! ^= 1
    expect(() => ledger.check(3, both)).toThrow('sector 3 (byte 1536) holds what no single write left')
  })

  it('takes an unacknowledged write as it finds it, and then wants it so', () => {
    const old = write(0, 2)
    const number = ledger.sent('data', 0, 2)
    const mixed = Buffer.concat([contentOf(number, 0, 1), old.subarray(SECTOR_BYTES)])
    ledger.check(0, mixed)
    expect(() => ledger.check(0, old)).toThrow('sector 0 (byte 0) holds write 1 instead of write 2')
    ledger.forgetInFlight()
    expect(() => ledger.check(0, contentOf(number, 0, 2))).toThrow('sector 1 (byte 512) holds write 2')
    ledger.check(0, mixed)
  })

  it('wants zeros after zeroing', () => {
    write(7)
    ledger.acknowledged(ledger.sent('zeros', 7, 1))
    ledger.check(7, ZEROS)
    expect(() => ledger.check(7, contentOf(1, 7, 1))).toThrow('holds write 1 instead of zeros')
  })

  it('knows the same after it was reopened, even in the middle of a line', () => {
    const content = write(9)
    ledger.mark('s')
    const number = ledger.sent('data', 9, 1)
    appendFileSync(file, `acknowledged ${number}`)
    ledger = reopen()
    ledger.check(9, content)
    expect(ledger.inFlight).toBe(1)
    expect(ledger.marks).toEqual([{ name: 's', isOpen: true }])
    expect(ledger.sent('data', 10, 1)).toBe(number + 1)
    ledger = reopen()
    expect(ledger.inFlight).toBe(2)
  })
})

describe('a snapshot', () => {
  /** Checks two sectors of the snapshot that are apart from each other. */
  function check(first: Buffer, second: Buffer): void {
    const snapshot = ledger.snapshotCheck('s')
    snapshot.check(0, first)
    snapshot.check(8, second)
    snapshot.finish()
  }

  it('is of one moment while it may have been taken', () => {
    const [before, other] = [write(0), write(8)]
    ledger.mark('s')
    const during = write(0)
    const later = write(8)
    ledger.unmark('s')
    const after = write(0)
    check(before, other)
    check(during, other)
    check(during, later)
    expect(() => check(before, later)).toThrow('lacks write 3, which was acknowledged before write 4 was sent')
    expect(() => check(ZEROS, other)).toThrow('sector 0 (byte 0) holds zeros instead of write 1 or write 3')
    expect(() => check(after, later)).toThrow('sector 0 (byte 0) holds write 5')
  })

  it('may lack a write that was in flight, or have it', () => {
    const number = ledger.sent('data', 0, 1)
    ledger.mark('s')
    const other = write(8)
    ledger.acknowledged(number)
    check(ZEROS, other)
    check(contentOf(number, 0, 1), ZEROS)
  })
})
