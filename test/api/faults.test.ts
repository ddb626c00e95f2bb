import { describe, expect, test } from 'vitest'
import { FAULTS, faultOf, PreconditionFailed } from '../../src/api/faults.ts'
import { SERVICE_ERRORS, ServiceError, type ServiceErrorCode } from '../../src/errors.ts'

const KEYS: Record<number, string> = {
  400: 'badRequest',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'itemNotFound',
  405: 'badMethod',
  406: 'computeFault',
  409: 'conflictingRequest',
  413: 'overLimit',
  415: 'badMediaType',
  500: 'computeFault',
  503: 'serviceUnavailable',
}

describe('faultOf', () => {
  test.each(Object.keys(SERVICE_ERRORS) as ServiceErrorCode[])(
    '%s has its status, and the key of that status',
    (code) => {
      const fault = faultOf(new ServiceError(code, { reason: 'because' }))
      const { status } = FAULTS[code]
      expect(fault.status).toBe(status)
      expect(Object.keys(fault.body!)).toEqual([KEYS[status]])
      expect(Object.values(fault.body!)[0]).toMatchObject({ code: status, message: expect.any(String) })
    },
  )

  test('a state conflict is 400 in the words of Cinder', () => {
    expect(faultOf(new ServiceError('InvalidVolume', { reason: 'status must be available' })).body).toEqual({
      badRequest: { code: 400, message: 'Invalid volume: status must be available' },
    })
  })

  test('a quota fault says that waiting is pointless', () => {
    const fault = faultOf(new ServiceError('QuotaExceeded', { kind: 'VolumeLimitExceeded', reason: 'too many' }))
    expect(fault.headers).toEqual({ 'retry-after': '0' })
    expect(fault.body).toEqual({
      overLimit: { code: 413, message: 'VolumeLimitExceeded: too many', retryAfter: '0' },
    })
  })

  test.each([new Error('secret detail'), new TypeError('x is undefined'), 'text', undefined])(
    'what is not a ServiceError is a 500 without details (%s)',
    (thrown) => {
      const fault = faultOf(thrown)
      expect(fault).toMatchObject({ status: 500, unexpected: true })
      expect(JSON.stringify(fault.body)).not.toMatch(/secret|undefined|text/)
    },
  )

  test('a failed If-Match has no body', () => {
    expect(faultOf(new PreconditionFailed())).toEqual({ status: 412, headers: {}, body: null, unexpected: false })
  })
})
