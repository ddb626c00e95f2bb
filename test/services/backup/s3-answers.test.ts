import { describe, expect, it } from 'vitest'
import { readFailure, readListing } from '../../../src/services/backup/s3-answers.ts'

const listing = (inside: string) =>
  Buffer.from(
    `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${inside}</ListBucketResult>`,
  )

describe('what S3 answers', () => {
  it('names objects as they are, one or many, with what they begin with', () => {
    const one = '<Contents><Key>a/b&amp;c &lt;1&gt;</Key><Size>3</Size></Contents>'
    expect(readListing(listing(`<IsTruncated>false</IsTruncated>${one}`))).toEqual({
      names: ['a/b&c <1>'],
      next: null,
    })
    const many = '<Contents><Key>0012</Key></Contents><Contents><Key>1e5</Key></Contents>'
    const prefixes = '<CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes>'
    expect(readListing(listing(`${many}\n  ${prefixes}`))?.names).toEqual(['0012', '1e5', 'x/'])
  })

  it('decodes what is said to be encoded, and says where the next page begins', () => {
    const encoded = '<EncodingType>url</EncodingType><Contents><Key>a%2Fb%20c+d%2B</Key></Contents>'
    const more = '<IsTruncated>true</IsTruncated><NextContinuationToken>1/t==</NextContinuationToken>'
    expect(readListing(listing(encoded + more))).toEqual({ names: ['a/b c d+'], next: '1/t==' })
  })

  it('of nothing is nothing, and what is no listing is none', () => {
    expect(readListing(listing(''))).toEqual({ names: [], next: null })
    for (const body of ['', 'Bad gateway', '<html><body>no</body></html>', '<ListBucketResult', '{"a": 1}'])
      expect(readListing(Buffer.from(body)), body).toBeNull()
  })

  it('tells code and message of an error, as far as they can be read', () => {
    const error = '<?xml version="1.0"?><Error><Code>NoSuchBucket</Code><Message>not &quot;here&quot;</Message></Error>'
    expect(readFailure(Buffer.from(error))).toEqual({ code: 'NoSuchBucket', message: 'not "here"' })
    expect(readFailure(Buffer.from('<Error><Code>X</Code></Error>'))).toEqual({ code: 'X', message: null })
    expect(readFailure(Buffer.from('Service Unavailable'))).toEqual({ code: '', message: null })
  })
})
