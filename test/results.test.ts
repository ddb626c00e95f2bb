import { expect, it } from 'vitest'
import { STORE_ERRORS, StoreError, type StoreErrorCode } from '../src/errors.ts'
import { errorOf, resultOf } from '../src/results.ts'

it('carries every failure over the wire and back', () => {
  for (const code of Object.keys(STORE_ERRORS) as StoreErrorCode[]) {
    const error = errorOf(resultOf(new StoreError(code)))
    expect(error).toBeInstanceOf(StoreError)
    expect(error?.code).toBe(code)
  }
})

it('uses the codes that foreign clients have a branch on', () => {
  const results = (['NoVdi', 'VdiLocked', 'NoTag', 'ReadOnly', 'VdiExists', 'NoObject'] as const).map((code) =>
    resultOf(new StoreError(code)),
  )
  expect(results).toEqual([0x08, 0x07, 0x0e, 0x1a, 0x04, 0x02])
})

it('answers a defect of ours with SYSTEM_ERROR', () => {
  expect(resultOf(new TypeError('x'))).toBe(0x06)
})

it('takes SUCCESS for no failure, and names a code that it does not know', () => {
  expect(errorOf(0)).toBeNull()
  expect(errorOf(0x12)?.message).toContain('NO_MEM')
  expect(errorOf(0xee)?.message).toContain('0xee')
})
