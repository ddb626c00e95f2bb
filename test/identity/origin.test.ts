import { describe, expect, test } from 'vitest'
import { createNoauth } from '../../src/identity/noauth.ts'
import { originOf } from '../../src/identity/origin.ts'

describe('originOf', () => {
  test.each([
    [{ host: '127.0.0.1:8776' }, 'http://127.0.0.1:8776'],
    [{ host: '[::1]:8776' }, 'http://[::1]:8776'],
    [{ host: 'a', 'x-forwarded-host': 'inner, cloud.example' }, 'http://cloud.example'],
    [{ host: 'a', 'x-forwarded-proto': 'https', 'x-forwarded-prefix': '/volume/' }, 'https://a/volume'],
    [{ host: 'a/../b"<script>' }, 'http://localhost'],
    [{ host: 'a', 'x-forwarded-host': 'evil path' }, 'http://a'],
    [{ host: 'a', 'x-forwarded-prefix': '//evil.example' }, 'http://a'],
    [{ host: 'a', 'x-forwarded-proto': 'javascript' }, 'http://a'],
    [{}, 'http://localhost'],
  ])('%j is %s', (headers, origin) => {
    expect(originOf(headers, null)).toBe(origin)
  })

  test('a public endpoint wins', () => {
    expect(originOf({ host: 'a' }, 'https://cloud.example/volume/')).toBe('https://cloud.example/volume')
  })
})

describe('noauth', () => {
  const { authenticate } = createNoauth({ publicEndpoint: null })

  test('believes user and project, and makes everybody an administrator', async () => {
    expect(await authenticate({ 'x-auth-token': 'admin:0123' })).toEqual({
      userId: 'admin',
      projectId: '0123',
      roles: ['admin', 'member', 'reader'],
      isService: false,
    })
    expect(await authenticate({ 'x-auth-token': 'demo' })).toMatchObject({ userId: 'demo', projectId: 'demo' })
  })

  test('wants a token all the same', async () => {
    await expect(authenticate({})).rejects.toMatchObject({ code: 'Unauthorized' })
  })
})
