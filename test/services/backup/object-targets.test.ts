import { randomUUID } from 'node:crypto'
import { describe, expect } from 'vitest'
import { type HttpClient, HttpFailure, type HttpRequest, type HttpResponse } from '../../../src/runtime/http-client.ts'
import {
  BUCKET,
  openS3Target,
  openSwiftTarget,
  S3_HOST,
  sharedSwift,
  type TargetPorts,
  withSwift,
} from '../../tools/swift.ts'
import { loseAndRestore } from './lost-cloud.ts'
import { describeTargetContract } from './target-contract.ts'

describeTargetContract('S3', () => openS3Target(), withSwift)
describeTargetContract('S3 by the names of buckets', () => openS3ByHost(), withSwift)
describeTargetContract('Swift', () => openSwiftTarget(), withSwift)

/** Requests go to a host of the bucket's name, and only to that. */
async function openS3ByHost() {
  const { port, host } = new URL((await sharedSwift()).url)
  const named = `${BUCKET}.${S3_HOST}:${port}`
  const wrap = (http: HttpClient): HttpClient => ({
    ...http,
    request: ({ url, headers, ...request }) => {
      expect(new URL(url).host).toBe(named)
      expect(new URL(url).pathname).not.toContain(BUCKET)
      return http.request({ ...request, url: url.replace(named, host), headers: { ...headers, host: named } })
    },
  })
  return openS3Target({ endpoint: `http://${S3_HOST}:${port}`, addressing: 'host' }, { wrap })
}

const KINDS = [
  { kind: 'S3', open: (changes: { listedMax?: number }, ports?: TargetPorts) => openS3Target(changes, ports) },
  { kind: 'Swift', open: (changes: { listedMax?: number }, ports?: TargetPorts) => openSwiftTarget(changes, ports) },
]

/** Lets the first requests that carry or fetch an object end otherwise. */
function troubled(count: number, trouble: (request: HttpRequest, http: HttpClient) => Promise<HttpResponse>) {
  let left = count
  const requests: HttpRequest[] = []
  const wrap = (http: HttpClient): HttpClient => ({
    ...http,
    request: (request) => {
      requests.push(request)
      const isObject = request.url.includes('chunk-')
      if (!isObject || left === 0) return http.request(request)
      left--
      return trouble(request, http)
    },
  })
  return { wrap, requests }
}

const answer = (status: number): HttpResponse => ({ status, headers: {}, read: async () => null, destroy: () => {} })

describe('a target in an object store', () => {
  for (const { kind, open } of KINDS) {
    withSwift(`${kind} goes through pages of names`, async () => {
      const target = await open({ listedMax: 3 })
      const directory = `container-${randomUUID()}`
      const names = Array.from({ length: 11 }, (_, index) => `chunk-${index}`)
      for (const name of names) await target.put(`${directory}/one/${name}`, Buffer.from('x'))
      expect((await target.list(`${directory}/one`)).sort()).toEqual([...names].sort())
      await target.removeBelow(`${directory}/one`)
      expect(await target.list(`${directory}/one`)).toEqual([])
    })

    withSwift(`${kind} repeats what a store could not answer`, async () => {
      const failures: (() => Promise<HttpResponse>)[] = [
        async () => answer(503),
        async () => answer(429),
        async () => {
          throw new HttpFailure('no answer within 30 s')
        },
      ]
      const { wrap } = troubled(3, async () => failures.shift()!())
      const target = await open({}, { wrap })
      const name = `container-${randomUUID()}/one/chunk-1`
      await target.put(name, Buffer.from('arrives'))
      expect(failures).toEqual([])
      expect((await target.get(name))?.toString()).toBe('arrives')
    })

    withSwift(`${kind} says so when it stays away, and how it was asked`, async () => {
      const { wrap, requests } = troubled(100, async () => answer(503))
      const target = await open({}, { wrap })
      await expect(target.get('container/one/chunk-1')).rejects.toMatchObject({
        code: 'ServiceUnavailable',
        message: expect.stringMatching(/the backup target, .* is not available: it answers with status 503/),
      })
      expect(requests.filter(({ url }) => url.includes('chunk-1'))).toHaveLength(4)
    })

    withSwift(`${kind} refuses what was damaged on the way`, async () => {
      const { wrap } = troubled(1, (request, http) => {
        const body = Buffer.from(request.body!)
        body[7]! ^= 1
        return http.request({ ...request, body })
      })
      const target = await open({}, { wrap })
      const name = `container-${randomUUID()}/one/chunk-1`
      await expect(target.put(name, Buffer.from('whole and sound'))).rejects.toMatchObject({ code: 'BackendFailure' })
      expect(await target.get(name)).toBeNull()
      await target.put(name, Buffer.from('whole and sound'))
      expect((await target.get(name))?.toString()).toBe('whole and sound')
    })
  }
})

withSwift('a lost cloud is brought back from what lies in Swift', async () => {
  await loseAndRestore(await openSwiftTarget({ container: 'of a lost cloud' }))
})

describe('S3 says which setting is wrong', () => {
  const HOUR_MS = 3_600_000
  const cases = [
    { wrong: 'the secret', changes: { secretKey: 'another-secret' }, tells: /backup_s3\.secret_key is not that of/ },
    { wrong: 'the key', changes: { accessKey: 'nobody:at-all' }, tells: /backup_s3\.(access|secret)_key/ },
    {
      wrong: 'the bucket',
      changes: { bucket: 'no-such-bucket' },
      tells: /backup_s3\.bucket: there is none of that name/,
    },
    { wrong: 'the region', changes: { region: 'us-west-7' }, tells: /backup_s3\.region is not that of the bucket/ },
    {
      wrong: 'the clock',
      changes: {},
      now: () => Date.now() - HOUR_MS,
      tells: /the clocks of this host and of the store/,
    },
  ]
  for (const { wrong, changes, now, tells } of cases) {
    withSwift(`when it is ${wrong}`, async () => {
      const target = await openS3Target(changes, now ? { now } : {})
      const asked = [target.put('a/b/c', Buffer.from('x')), target.get('a/b/c'), target.list('a')]
      for (const told of await Promise.allSettled(asked)) {
        expect(told).toMatchObject({ status: 'rejected', reason: { code: 'BackendFailure' } })
        const { message } = (told as PromiseRejectedResult).reason as Error
        expect(message).toMatch(tells)
        expect(message).not.toMatch(/testing|another-secret|AWS4-HMAC/)
      }
    })
  }
})

describe('Swift', () => {
  withSwift('says that a password is not taken, and not which', async () => {
    const target = await openSwiftTarget({ key: 'not-the-password' })
    const refused = target.list('a')
    await expect(refused).rejects.toThrow(
      /gives no token for backup_swift.username with backup_swift.password \(status 401\)/,
    )
    await expect(refused).rejects.not.toThrow(/not-the-password/)
  })

  withSwift('is asked with a new token when the old one is not taken any more', async () => {
    let isRevoked = false
    const wrap = (http: HttpClient): HttpClient => ({
      ...http,
      request: (request) => {
        if (!isRevoked || request.headers['x-auth-token'] === undefined) return http.request(request)
        isRevoked = false
        return http.request({ ...request, headers: { ...request.headers, 'x-auth-token': 'AUTH_tk0' } })
      },
    })
    const target = await openSwiftTarget({}, { wrap })
    const name = `container-${randomUUID()}/one/chunk-1`
    await target.put(name, Buffer.from('x'))
    isRevoked = true
    expect((await target.get(name))?.toString()).toBe('x')
    expect(isRevoked).toBe(false)
  })
})
